"""Fine-tunes a model: from the names of a base and a data set to a folder to publish."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hfclip.data.examples import read_dataset
from hfclip.data.records import Dataset, Example
from hfclip.devices import Device
from hfclip.errors import TrainingError
from hfclip.images.preprocess import image_transform
from hfclip.model import CLIP
from hfclip.text.tokenizer import tokenize
from hfclip.training import folder as folders
from hfclip.training.base import find_base, load_base, weights_digest
from hfclip.training.batches import Batches
from hfclip.training.captions import captions_of
from hfclip.training.checkpoints import State, newest_checkpoint, read_state, restore
from hfclip.training.log import Log
from hfclip.training.loop import Training
from hfclip.training.optimizer import choose_parameters, make_optimizer
from hfclip.training.processes import Processes, join_processes
from hfclip.training.settings import Plan, Settings
