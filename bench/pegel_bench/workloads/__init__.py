"""What each sub-command of ``pegel bench`` does, one file each."""
