"""`hfclip.light` in a process in which torch cannot be imported."""

import subprocess
import sys

from conftest import SavedModel

PROGRAM = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision"}:
            raise ImportError(f"{name} is absent")

sys.meta_path.insert(0, Absent())

import numpy as np
import hfclip
from hfclip.releases import bundled_folder

model, preprocess = hfclip.light.load("digits")
names = ["zero", "one", "two"]
pixels = [preprocess(bundled_folder("digits") / f"{name}.png") for name in names]
images = model.encode_image(np.stack(pixels))
texts = model.encode_text(hfclip.light.tokenize([f"a handwritten {name}" for name in names]))
texts /= np.linalg.norm(texts, axis=1, keepdims=True)
print([names[best] for best in (images @ texts.T).argmax(axis=1)])
try:
    hfclip.light.load(sys.argv[1])
except hfclip.NeedsTorchError as error:
    print(str(error).endswith("pip install torch torchvision."))
assert not {"torch", "torchvision"} & set(sys.modules)
"""


def test_a_model_answers_without_torch(saved_vit: SavedModel) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(saved_vit.state_dict)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == "['zero', 'one', 'two']\nTrue\n"
