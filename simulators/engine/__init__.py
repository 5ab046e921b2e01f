"""An engine without a model: the HTTP surface of vLLM or SGLang over a synthetic load."""
