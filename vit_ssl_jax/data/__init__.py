"""Host side: sources of images, augmentation of pixels, batches by Grain."""
