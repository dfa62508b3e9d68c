"""Images for training: readers, augmentation, batches. The readers of labelled images are here by name."""

from bignas_zoo.recipes.data.images import (
    CIFAR10_CLASSES,
    LabelledImages,
    TrainingBatches,
    batches,
    cifar10,
    image_folder,
    is_cifar10,
    read_labelled,
    split_holdout,
    unlabelled_images,
)

__all__ = [
    "CIFAR10_CLASSES",
    "LabelledImages",
    "TrainingBatches",
    "batches",
    "cifar10",
    "image_folder",
    "is_cifar10",
    "read_labelled",
    "split_holdout",
    "unlabelled_images",
]
