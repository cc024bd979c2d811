"""From pictures to network inputs: crops, resizing, augmentation, pretraining samples and batches."""
