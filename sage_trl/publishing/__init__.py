"""Takes a trained model to the Hugging Face Hub: what goes, what must not, the model card, the upload."""
