"""One module per supported base model: a model subclass and a processor each."""
