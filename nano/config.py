"""The numbers of a model. `NANO` is the one this folder trains."""

import dataclasses
import math


@dataclasses.dataclass
class Config:
    hidden: int = 256
    vocab: int = 4096
    heads: int = 8
    head_dim: int = 128
    rope: int = 64
    q_rank: int = 128
    o_groups: int = 4
    o_rank: int = 64
    window: int = 128
    ratios: tuple = (0, 0, 4, 128, 4, 128, 4)
    hash_layers: int = 2
    experts: int = 8
    experts_used: int = 2
    expert_hidden: int = 256
    routed_scale: float = 1.5
    swiglu_limit: float = 10.0
    index_heads: int = 16
    index_dim: int = 64
    index_top_k: int = 64
    streams: int = 4
    sinkhorn_iterations: int = 20
    hc_eps: float = 1e-6
    rms_eps: float = 1e-6
    theta: float = 10_000.0
    # Larger than the big models' 160000: at this head width more pairs must stand still over the
    # whole context for an index row to be found again by what it says.
    compressed_theta: float = 1e8
    yarn_factor: float = 16.0
    yarn_context: int = 65_536
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    max_context: int = 16_384
    mtp: bool = True

    @property
    def mix_rows(self):
        return 2 * self.streams + self.streams**2

    def frequencies(self, ratio):
        """Radians per position of each rotary pair; YaRN where rows are compressed."""
        pairs = range(self.rope // 2)
        if ratio == 0:
            return [self.theta ** (-2 * i / self.rope) for i in pairs]

        def pair_turning(turns):
            length = math.log(self.yarn_context / (turns * 2 * math.pi))
            return self.rope * length / (2 * math.log(self.compressed_theta))

        low = max(0, math.floor(pair_turning(self.beta_fast)))
        high = min(self.rope - 1, math.ceil(pair_turning(self.beta_slow)))
        out = []
        for i in pairs:
            f = self.compressed_theta ** (-2 * i / self.rope)
            ramp = min(1.0, max(0.0, (i - low) / max(0.001, high - low)))
            out.append(f * (1 - ramp) + f / self.yarn_factor * ramp)
        return out


NANO = Config()
