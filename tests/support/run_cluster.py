"""A toy run on the cluster of RAY_ADDRESS: input, output, settings of the GPU stage, of the run, as JSON."""

import json
import sys
from pathlib import Path

from pipelines.engine.settings import StageResources
from tests.support.cluster_toys import three_groups
from tests.support.helpers import make_run, quiet

if __name__ == "__main__":
    source, output, stage, settings = sys.argv[1:5]
    run = make_run(
        three_groups(**json.loads(stage)), source, Path(output), engine="ray", **json.loads(settings)
    )
    resources = {"cube": StageResources(cpus=1, gpus=1), "default": StageResources(cpus=0.5)}
    run.profile = run.profile.model_copy(update={"resources": resources})
    run.execute(quiet())
