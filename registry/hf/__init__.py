"""Read Hugging Face ``config.json`` files and quantization sections."""
