"""One file per experiment: parameters in, a record out.

Every number of the book comes from one of these functions. Their arguments are the only
configuration; profiles in ``notebooks/params`` and the command line name the same arguments.
"""

from mutmeta_lib.reproduction.audit import audit_experiment
from mutmeta_lib.reproduction.pair_transfer import protocols_experiment
from mutmeta_lib.reproduction.protocol import protocol_experiment
from mutmeta_lib.study.encoder_swap import swap_experiment
from mutmeta_lib.study.encodings import encoding_experiment
from mutmeta_lib.study.few_shot import few_shot_experiment
from mutmeta_lib.study.held_out import held_out_experiment
from mutmeta_lib.study.meta_training import meta_training_experiment
from mutmeta_lib.study.speed import speed_experiment
from mutmeta_lib.study.timing import timing_experiment
from mutmeta_lib.study.transfer import transfer_experiment
from mutmeta_lib.study.transfer_depth import transfer_depth_experiment
from mutmeta_lib.study.transfer_encodings import transfer_encodings_experiment

EXPERIMENTS = {
    "audit": audit_experiment,
    "encodings": encoding_experiment,
    "meta_training": meta_training_experiment,
    "few_shot": few_shot_experiment,
    "protocol": protocol_experiment,
    "timing": timing_experiment,
    "transfer": transfer_experiment,
    "transfer_depth": transfer_depth_experiment,
    "transfer_encodings": transfer_encodings_experiment,
    "held_out": held_out_experiment,
    "protocols": protocols_experiment,
    "speed": speed_experiment,
    "swap": swap_experiment,
}

__all__ = [
    "EXPERIMENTS",
    "audit_experiment",
    "encoding_experiment",
    "few_shot_experiment",
    "held_out_experiment",
    "meta_training_experiment",
    "protocol_experiment",
    "protocols_experiment",
    "speed_experiment",
    "swap_experiment",
    "timing_experiment",
    "transfer_depth_experiment",
    "transfer_encodings_experiment",
    "transfer_experiment",
]
