"Reads everything from settings.ini, so that nbdev and pip agree; needs nothing but setuptools."
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

KINDS = ("md", "json", "jsonl", "safetensors")
DATA = [f"{folder}*.{kind}" for folder in ("", "lite/", "lite/adapter/") for kind in KINDS]
here = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(here/"settings.ini", encoding="utf-8")
cfg = dict(parser["DEFAULT"])
readme = here/"README.md"
extras = {name: cfg[f"{name}_requirements"].split() for name in ("speech", "data", "serve", "cpp")}
dev = [*cfg["dev_requirements"].split(), *(one for extra in extras.values() for one in extra)]

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else cfg["description"],
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url="https://github.com/{user}/{repo}".format(**cfg),
    license="Apache-2.0",
    keywords=cfg["keywords"],
    python_requires=f">={cfg['min_python']}",
    packages=[*find_packages(include=["mmllm", "mmllm.*"]), "mmllm.files"],
    package_dir={"mmllm.files": "data"}, # the project's data travels inside; COCO's photos never do
    package_data={
        "mmllm.files": DATA,
        "mmllm.chat": ["static/*"],
        "mmllm.evaluation": ["static/*"],
        "mmllm.serve": ["static/*"],
    },
    install_requires=cfg["requirements"].split(),
    extras_require={"dev": dev, **extras},
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": ["mmllm=mmllm._modidx:d"],
        "lmms_eval.models": ["mmllm=mmllm.evaluation.lmms_eval:lmms_manifest"],
    },
    classifiers=["Programming Language :: Python :: 3", "Development Status :: 3 - Alpha"],
)
