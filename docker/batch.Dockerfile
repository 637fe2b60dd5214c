# mmedge as a container command for CPUs. Not built on the machine where it was written: it has no container runtime.
#   docker build -f docker/batch.Dockerfile -t mmedge .
#   docker run --rm -v /data:/data mmedge batch /data/scenes --out /data/maps --shard 2/8
FROM python:3.12-slim
# numpy and OpenVINO bring what they need; lazrs, pyogrio and shapely come as wheels.
COPY . /src
RUN pip install --no-cache-dir "/src[lidar,vector]" && rm -rf /src
# Any user may run it: nothing is written but below --out. Threads are those that the container may use.
ENV MMEDGE_NO_PROGRESS=1
ENTRYPOINT ["mmedge"]
