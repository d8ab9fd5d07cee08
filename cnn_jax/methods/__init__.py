"""What is done to a model: its functions and pytrees are passed in, so no method knows a model family."""
