# mmedge on a Jetson. Not executed: see docs/jetson.md. BASE is the vendor's l4t-tensorrt (devel) image of the JetPack that
# is on the device; JetPack 7 also wants --build-arg CUDA_PYTHON='cuda-python>=13'. Build it on the device:
#   docker build -f docker/jetson.Dockerfile --build-arg BASE=IMAGE -t mmedge .
#   docker run --runtime nvidia -v "$PWD:/data" -v mmedge-engines:/engines mmedge infer /data/scene.tif -o /data/map.tif
ARG BASE
FROM ${BASE}
ARG CUDA_PYTHON="cuda-python>=12.8,<13"
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*
# TensorRT is a package of the image: the environment has to see it.
RUN python3 -m venv --system-site-packages /opt/mmedge
COPY . /src
RUN /opt/mmedge/bin/pip install --no-cache-dir /src "${CUDA_PYTHON}" onnx && rm -rf /src
# Engines are built on the device, once, and kept outside the image.
ENV MMEDGE_ENGINES=/engines PATH=/opt/mmedge/bin:$PATH
VOLUME /engines
ENTRYPOINT ["mmedge"]
