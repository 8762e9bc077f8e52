"""What the systems that talk in turns share."""

from PIL import Image

from etchr.mllm.protocol import ImagePart, Message, TextPart

MAX_PICTURES = 8  # that tools or a unified model may add


def said(text: str, *images: Image.Image) -> Message:
    """A turn of the model, as it goes back to it."""
    pictures: list[TextPart | ImagePart] = [{"type": "image", "image": image} for image in images]
    return {"role": "assistant", "content": [{"type": "text", "text": text}, *pictures]}
