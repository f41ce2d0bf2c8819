"""Images and labels: three objectives, what each conditional is good for, and what the re-gauge repairs."""
