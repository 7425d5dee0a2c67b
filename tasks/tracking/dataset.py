"""Lineage of a catalog's run: the normalised catalog as a dataset of MLflow's."""

from pathlib import Path

import pyarrow as pa
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT
from pyarrow import parquet

from effivmt.store.digests import canonical_json, sha256_bytes

DIGEST = 36
"""Characters that MLflow keeps of a dataset's digest."""


def catalog_dataset(path: Path, name: str) -> DatasetInput:
    """The dataset of a catalog.parquet, by the name of the catalog's file.

    Its digest is that of the rows; its source says under which name the run itself keeps the file.
    """
    table = parquet.read_table(path)
    # MLflow's abstract `profile` has a default; MLflow itself creates MetaDataset so.
    dataset = MetaDataset(  # type: ignore[abstract]
        CodeDatasetSource({"catalog": name, "artifact": path.name}),
        name=name,
        digest=sha256_bytes(canonical_json(table.to_pylist()))[:DIGEST],
        schema=Schema([ColSpec(_kind(field.type), field.name, required=not field.nullable) for field in table.schema]),
    )
    return DatasetInput(dataset._to_mlflow_entity(), [InputTag(MLFLOW_DATASET_CONTEXT, "reference clips")])


def _kind(kind: pa.DataType) -> DataType | Array:
    if pa.types.is_list(kind):
        return Array(_kind(kind.value_type))
    return {"int64": DataType.long, "double": DataType.double}.get(str(kind), DataType.string)
