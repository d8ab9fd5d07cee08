"""Sources of labelled images, the order of examples, batches, and augmentation on the device."""
