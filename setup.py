from setuptools import find_packages, setup

setup(
    name="reblur_plugin",
    version="0.1.0",
    description="'Clean Images are Hard to Reblur' (ICLR 2022) for BasicSR: reblurring losses and test-time adaptation",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["reblur_plugin*"]),
    install_requires=[
        "basicsr>=1.4.2",
        "jinja2",
        "jsonschema",
        "lpips",
        "matplotlib",
        "numpy",
        "opencv-python>=4.12",  # keeps colour profiles and camera notes
        "pillow",
        "platformdirs",
        "pyyaml",
        "scikit-image",
        "scipy<2",  # basicsr.metrics.niqe imports scipy.ndimage.filters, which SciPy 2.0 removes
        "tb-nightly",
        "tifffile",
        "torch",
        "torchvision",  # imported by basicsr
        "tqdm",
    ],
    package_data={
        "reblur_plugin.app": ["examples/*", "page/*"],
        "reblur_plugin.pretrained": ["*.pth"],
        "reblur_plugin.report": ["published.csv", "page/*"],
        "reblur_plugin.viewer": ["*.css", "*.js"],
    },
    extras_require={
        "app": ["starlette", "uvicorn"],
        "spandrel": ["spandrel"],
        "test": [
            "hypothesis",
            "mypy",
            "playwright",
            "pytest",
            "pytest-xdist",
            "ruff",
            "spandrel",
            "starlette",
            "types-PyYAML",
            "types-jsonschema",
            "uvicorn",
        ],
    },
)
