"""The fields of a KubeRay RayJob that deploy/rayjob.yaml may use, as pydantic models; any other is an error.

Names and types as in KubeRay's API `ray.io/v1` (ray-operator/apis/ray/v1/rayjob_types.go and
raycluster_types.go, from which its CRD is generated) and, for pods, in Kubernetes' core/v1. No package was
found that carries the CRD itself.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

# A DNS label, a share of a resource such as 500m or 16Gi, a variable.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?$")]
Count = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Text = Annotated[str, Field(strict=True)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SecretKey(Strict):
    name: Name
    key: Text


class ValueFrom(Strict):
    secretKeyRef: SecretKey


class Variable(Strict):
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    value: Text | None = None
    valueFrom: ValueFrom | None = None

    @model_validator(mode="after")
    def _one(self) -> Variable:
        assert (self.value is None) != (self.valueFrom is None), "either value or valueFrom"
        return self


class Requirements(Strict):
    limits: dict[Text, Quantity]
    requests: dict[Text, Quantity]

    @model_validator(mode="after")
    def _within(self) -> Requirements:
        assert self.limits.keys() == self.requests.keys()
        return self


class Mount(Strict):
    name: Name
    mountPath: Annotated[str, StringConstraints(pattern=r"^/")]
    readOnly: bool = False


class Container(Strict):
    name: Name
    image: Text
    env: list[Variable] = []
    resources: Requirements | None = None
    volumeMounts: list[Mount] = []


class Claim(Strict):
    claimName: Name


class EmptyDir(Strict):
    medium: Literal["", "Memory"] = ""
    sizeLimit: Quantity | None = None


class Volume(Strict):
    name: Name
    persistentVolumeClaim: Claim | None = None
    emptyDir: EmptyDir | None = None

    @model_validator(mode="after")
    def _one(self) -> Volume:
        assert (self.persistentVolumeClaim is None) != (self.emptyDir is None), "one kind of volume"
        return self


class Toleration(Strict):
    key: Text
    operator: Literal["Exists", "Equal"]
    value: Text | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class PodSpec(Strict):
    containers: Annotated[list[Container], Field(min_length=1)]
    volumes: list[Volume] = []
    tolerations: list[Toleration] = []
    restartPolicy: Literal["Always", "OnFailure", "Never"] | None = None

    @model_validator(mode="after")
    def _mounted(self) -> PodSpec:
        names = {volume.name for volume in self.volumes}
        assert all(mount.name in names for one in self.containers for mount in one.volumeMounts)
        return self


class PodTemplate(Strict):
    spec: PodSpec


class HeadGroup(Strict):
    rayStartParams: dict[Text, Text]
    template: PodTemplate


class WorkerGroup(Strict):
    groupName: Name
    replicas: Count = 0
    minReplicas: Count
    maxReplicas: Count
    rayStartParams: dict[Text, Text]
    template: PodTemplate

    @model_validator(mode="after")
    def _ordered(self) -> WorkerGroup:
        assert self.minReplicas <= self.replicas <= self.maxReplicas
        return self


class AutoscalerOptions(Strict):
    idleTimeoutSeconds: Count | None = None
    upscalingMode: Literal["Default", "Aggressive", "Conservative"] | None = None
    env: list[Variable] = []


class AuthOptions(Strict):
    """Since KubeRay 1.5.1: the operator makes the token and gives it to every pod, and to itself."""

    mode: Literal["disabled", "token"]


class ClusterSpec(Strict):
    rayVersion: Text
    authOptions: AuthOptions | None = None
    enableInTreeAutoscaling: bool = False
    autoscalerOptions: AutoscalerOptions | None = None
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]


class JobSpec(Strict):
    entrypoint: Text
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode"] = "K8sJobMode"
    backoffLimit: Count = 0
    shutdownAfterJobFinishes: bool = False
    ttlSecondsAfterFinished: Count = 0
    submitterPodTemplate: PodTemplate | None = None
    rayClusterSpec: ClusterSpec


class Metadata(Strict):
    name: Name


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec
