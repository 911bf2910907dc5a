"""The named models: repository, revision, SHA-256 and configuration of each."""

from dataclasses import dataclass
from pathlib import Path

from hfclip.config import ClipConfig


@dataclass(frozen=True)
class HubFile:
    """A weight file on the Hub, in open_clip's layout and float32.

    An unknown value is None. Without a known sha256, the file is checked against the hash that the
    Hub declares.
    """

    repo_id: str
    revision: str | None
    file: str
    size: int | None
    sha256: str | None

    @property
    def pinned(self) -> str:
        """Returns whether the file is pinned: "yes" (commit and sha256), "hash only" or "no"."""
        if self.sha256 is None:
            return "no"
        return "yes" if self.revision else "hash only"


@dataclass(frozen=True)
class Original:
    """The TorchScript archive that OpenAI published."""

    file: str
    size: int
    sha256: str

    @property
    def url(self) -> str:
        """Returns OpenAI's URL of the archive. The second last part of the path is the sha256."""
        return f"https://openaipublic.azureedge.net/clip/models/{self.sha256}/{self.file}"


@dataclass(frozen=True)
class Release:
    """One of the nine models that OpenAI released."""

    config: ClipConfig
    hub: HubFile
    original: Original


# In the order of OpenAI's list. The positional arguments of ClipConfig are embed_dim,
# image_resolution, vision_layers, vision_width, vision_patch_size, context_length, vocab_size,
# transformer_width, transformer_heads, transformer_layers.
RELEASES = {
    "RN50": Release(
        ClipConfig(1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12),
        HubFile(
            repo_id="timm/resnet50_clip.openai",
            revision="ec3d92cf63a5f9d591f0d611b736895966c73076",
            file="open_clip_model.safetensors",
            size=408_291_932,
            sha256="da0baa37fb2211eee5729ab69ed587eb10d48f5b7076ceeed01552fc3d4cb4ee",
        ),
        Original(
            "RN50.pt",
            255_827_503,
            "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
        ),
    ),
    "RN101": Release(
        ClipConfig(512, 224, (3, 4, 23, 3), 64, None, 77, 49408, 512, 8, 12),
        HubFile(
            repo_id="timm/resnet101_clip.openai",
            revision=None,
            file="open_clip_model.safetensors",
            size=None,
            sha256=None,
        ),
        Original(
            "RN101.pt",
            291_791_292,
            "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
        ),
    ),
    "RN50x4": Release(
        ClipConfig(640, 288, (4, 6, 10, 6), 80, None, 77, 49408, 640, 10, 12),
        HubFile(
            repo_id="timm/resnet50x4_clip.openai",
            revision=None,
            file="open_clip_model.safetensors",
            size=None,
            sha256="fcd5a494550d0951f314a9d74225887e727ddc20c28c78962b58464705bfb465",
        ),
        Original(
            "RN50x4.pt",
            421_854_225,
            "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
        ),
    ),
    "RN50x16": Release(
        ClipConfig(768, 384, (6, 8, 18, 8), 96, None, 77, 49408, 768, 12, 12),
        HubFile(
            repo_id="timm/resnet50x16_clip.openai",
            revision=None,
            file="open_clip_model.safetensors",
            size=None,
            sha256=None,
        ),
        Original(
            "RN50x16.pt",
            661_125_706,
            "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
        ),
    ),
    "RN50x64": Release(
        ClipConfig(1024, 448, (3, 15, 36, 10), 128, None, 77, 49408, 1024, 16, 12),
        HubFile(
            repo_id="timm/resnet50x64_clip.openai",
            revision=None,
            file="open_clip_model.safetensors",
            size=None,
            sha256=None,
        ),
        Original(
            "RN50x64.pt",
            1_353_500_174,
            "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
        ),
    ),
    "ViT-B/32": Release(
        ClipConfig(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12),
        HubFile(
            repo_id="timm/vit_base_patch32_clip_224.openai",
            revision="a6f597a30f7b82c51704746581f9a4e41421e878",
            file="open_clip_model.safetensors",
            size=605_143_284,
            sha256="e6d1bd7789aa45192b3bf90570a789b478bae1b74ebcce7eddd908e83a2b7c31",
        ),
        Original(
            "ViT-B-32.pt",
            353_976_522,
            "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        ),
    ),
    "ViT-B/16": Release(
        ClipConfig(512, 224, 12, 768, 16, 77, 49408, 512, 8, 12),
        HubFile(
            repo_id="timm/vit_base_patch16_clip_224.openai",
            revision="977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
            file="open_clip_model.safetensors",
            size=598_516_980,
            sha256="4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f",
        ),
        Original(
            "ViT-B-16.pt",
            350_837_078,
            "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        ),
    ),
    "ViT-L/14": Release(
        ClipConfig(768, 224, 24, 1024, 14, 77, 49408, 768, 12, 12),
        HubFile(
            repo_id="timm/vit_large_patch14_clip_224.openai",
            revision="18d0535469bb561bf468d76c1d73aa35156c922b",
            file="open_clip_model.safetensors",
            size=None,
            sha256="9ce2e8a8ebfff3793d7d375ad6d3c35cb9aebf3de7ace0fc7308accab7cd207e",
        ),
        Original(
            "ViT-L-14.pt",
            932_768_134,
            "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        ),
    ),
    "ViT-L/14@336px": Release(
        ClipConfig(768, 336, 24, 1024, 14, 77, 49408, 768, 12, 12),
        HubFile(
            repo_id="timm/vit_large_patch14_clip_336.openai",
            revision="81e38efc4637de5023b10e75a7f9bd1c6fa6b010",
            file="open_clip_model.safetensors",
            size=1_711_828_444,
            sha256="fbc415c3d0d7b79faed8f5ccfb740c32b7c4f5ffe7283b851f89c6231c01a8e0",
        ),
        Original(
            "ViT-L-14-336px.pt",
            934_088_680,
            "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        ),
    ),
}

# The SHA-256 of each file of the models in the package. The folder has the name of the model.
BUNDLED = {
    "digits": {
        "model.safetensors": "2ffce5d8d4d9194284fb98c05fb447690bf282230e30d8bc944957be7c304d48",
        "config.json": "3f1a32a9d27bc9e8b2b72a1e283738c479a419fc357adce3ab734deb7b88f2d0",
    },
}


def bundled_folder(name: str) -> Path:
    """Returns the folder of a model in `BUNDLED`."""
    return Path(__file__).parent / name


def repository_name(release: str) -> str:
    """Returns the repository name of a release: `ViT-L/14@336px` -> `ViT-L-14-336px`."""
    return release.replace("/", "-").replace("@", "-")
