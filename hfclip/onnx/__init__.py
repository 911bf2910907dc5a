"""ONNX graphs of both towers beside a model's weights."""
