"""Files: the one writer, temporary files, strict reading, what records may say."""
