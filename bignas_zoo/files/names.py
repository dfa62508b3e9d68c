"""The name of every file and folder that this package writes, once (normative: docs/FORMAT.md)."""

from __future__ import annotations

#: A slice folder.
SLICE, EXPORTS = "slice.json", "exports.json"
TFLITE, WEIGHTS, LABELS, CARD = "model.tflite", "model.safetensors", "labels.txt", "README.md"
#: A family's folder, and what it is called inside a run's or a search's.
FAMILY, FRONT, SUPERNET, STATISTICS = "family.json", "front.json", "supernet.safetensors", "bn"
#: Its folder of weights of nets that were trained one by one.
NETS = "nets"
#: What a licence asks to be passed on: beside a family's weights, and beside those of each of its slices.
NOTICE = "NOTICE"
#: Some of the images that a family of one's own photographs was trained on, for int8: it stays at home.
TRAINING_IMAGES = "training_images.npz"
FAMILY_FOLDER = "family"
START = "start"
#: What a training on photographs says of itself: as data, and as a page.
REPORT_DATA, REPORT = "report.json", "report.html"
#: A training run's folder; METRICS are copied into its family's.
RECIPE, METRICS, NOTES, LOCK = "recipe.json", "metrics.jsonl", "notes.txt", "train.lock"
RUN_LICENSE = "license.txt"
#: A search's folder; a training run has measurements as well.
SETTINGS, MEASURED, SEARCH, DRAWINGS = "settings.json", "measured.jsonl", "search.json", ("search.png", "search.svg")
#: A repository of the Hub.
SUMS, SIGNATURE, CONFIG = "SHA256SUMS", "SHA256SUMS.sig", "config.json"
#: The cache: its folders; the list of a made entry's files; the digests and the slice folder of a fetched one.
SLICES, HUB, SEARCHES, LOCKS, REFS = "slices", "hub", "searches", "locks", "refs"
MANIFEST, DIGESTS, FETCHED_SLICE = "manifest.json", "entry.json", "slice"
#: The list of imported families, in the folder of a user's data; and what their files are fetched to, in the cache.
IMPORTED, IMPORTS = "imported.json", "imports"
#: A SavedModel.
SAVED_MODEL = "saved_model.pb"
