"""The experiments that are more than a study: parameters in, a record out."""

from mutmeta_lib.reproduction.audit import audit_experiment
from mutmeta_lib.reproduction.pair_transfer import protocols_experiment
from mutmeta_lib.reproduction.protocol import protocol_experiment
from mutmeta_lib.study.encodings import encoding_experiment
from mutmeta_lib.study.speed import speed_experiment

EXPERIMENTS = {
    "audit": audit_experiment,
    "encodings": encoding_experiment,
    "protocol": protocol_experiment,
    "protocols": protocols_experiment,
    "speed": speed_experiment,
}
