# EffiVMT in a container, on the CPU or on NVIDIA GPUs:
#   docker build --target cpu --tag effivmt:cpu .
#   docker build --target cuda --tag effivmt:cuda .      # the host needs NVIDIA's driver and container toolkit
#   docker run --rm --volume "$PWD:/work/clips" effivmt:cpu effivmt demo --out clips/demo
# compose.yaml runs a catalog every night with it.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm AS source
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY data data
COPY effivmt effivmt
COPY flows flows
COPY tasks tasks

# The wheels of torch for the CPU alone; PyPI's bring gigabytes of CUDA.
FROM source AS cpu-packages
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/effivmt && /opt/effivmt/bin/pip install --no-cache-dir --constraint constraints.txt --extra-index-url "${TORCH_INDEX}" ".[full,remote]"

FROM source AS cuda-packages
RUN python -m venv /opt/effivmt && /opt/effivmt/bin/pip install --no-cache-dir --constraint constraints.txt ".[full,remote]"

FROM python:${PYTHON}-slim-bookworm AS runtime
ENV PATH=/opt/effivmt/bin:${PATH} PYTHONUNBUFFERED=1
# A volume gets the owner of the folder that it is mounted over.
RUN useradd --create-home --uid 1000 effivmt && install --directory --owner effivmt /work /work/store /work/out /work/prefect /work/mlflow /home/effivmt/.cache /home/effivmt/.cache/huggingface
WORKDIR /work
USER 1000
CMD ["effivmt", "--help"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=cuda-packages /opt/effivmt /opt/effivmt
RUN effivmt doctor

FROM runtime AS cpu
COPY --from=cpu-packages /opt/effivmt /opt/effivmt
RUN effivmt doctor
