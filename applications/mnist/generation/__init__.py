"""Images that are in no bank: an image prior tilted by contrastive models, judged beside other ways to draw images."""

from applications.mnist.generation.config import Config
from applications.mnist.generation.run import run

__all__ = ["Config", "run"]
