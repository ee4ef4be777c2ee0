"""Looks at manifests with Kubernetes' own schemas, of every minor that the chart and the manifests are for.

An unknown field is an error, as is a kind that a minor does not have. Resources of prometheus-operator are left out,
since Kubernetes has no schema for them: a cluster with the operator's CRDs looks at those.
"""

import functools
import sys

import kubernetes_validate
import kubernetes_validate.utils
import yaml

MINORS = [f"1.{minor}" for minor in range(29, 36)]
OPERATOR = "monitoring.coreos.com/"

# It would read a minor's schemas, megabytes, once for each object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


def objects(path):
    """The objects of a file; at least one."""
    with open(path, encoding="utf-8") as file:
        found = [document for document in yaml.safe_load_all(file) if document]
    if not found:
        raise SystemExit(f"{path}: there is nothing in it")
    return found


def mistakes(manifest):
    """A sentence for each mistake; the same one in several minors is told for the first."""
    told = {}
    for minor in MINORS:
        try:
            kubernetes_validate.validate(manifest, minor, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = ".".join(str(step) for step in error.path)
            told.setdefault(f"{place}: {error.message}", minor)
        except kubernetes_validate.SchemaNotFoundError as error:
            told.setdefault(error.message, minor)
    return [f"(Kubernetes {minor}) {sentence}" for sentence, minor in told.items()]


def main(paths):
    """Tells all mistakes of all files; whether there were any."""
    found = False
    for path in paths:
        for manifest in objects(path):
            if manifest["apiVersion"].startswith(OPERATOR):
                continue
            for sentence in mistakes(manifest):
                found = True
                print(f"{path}: {manifest['kind']} {manifest['metadata']['name']}: {sentence}")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
