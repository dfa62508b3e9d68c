"""Once-for-all's published nets for devices: points of its two spaces that were tuned alone afterwards.

Reference: github.com/han-cai/files at a7c9bcd, folder ofa/ofa_specialized, whose net.config files say this; names are
the device and the latency there, or MACs.
"""

from __future__ import annotations

from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.architecture.spaces.once_for_all import ONCE_FOR_ALL, ONCE_FOR_ALL_WIDE

SPACES = {"1.0": ONCE_FOR_ALL, "1.2": ONCE_FOR_ALL_WIDE}
#: Name, width multiplier, pixels, depths of five stages; kernels and expansions of their layers, stage by stage.
TABLE = """
    s7edge-29ms    1.0 144 22222 33/53/53/55/35               33/34/44/44/63
    note8-22ms     1.0 140 22222 33/55/73/53/37               33/33/43/34/66
    lg-g8-8ms      1.0 144 22322 33/55/533/37/37              33/43/333/64/64
    note10-8ms     1.0 160 22322 33/33/333/33/35              33/34/433/34/44
    pixel1-20ms    1.0 152 22222 33/55/73/53/37               33/33/43/34/66
    pixel2-25ms    1.0 144 22232 33/55/73/773/53              33/64/43/434/64
    s7edge-41ms    1.0 160 22234 33/53/75/333/3533            33/34/44/443/6433
    note8-31ms     1.0 152 22334 53/55/335/357/3355           33/43/444/434/6333
    lg-g8-11ms     1.0 156 23233 33/537/53/535/575            33/344/43/443/664
    pixel1-28ms    1.0 160 23224 33/733/73/35/3333            34/364/36/64/6436
    note10-11ms    1.0 176 22233 33/53/53/333/355             33/44/44/433/444
    pixel2-35ms    1.0 160 23244 33/333/77/5337/7775          33/346/44/4333/4633
    s7edge-58ms    1.0 192 22433 33/53/7533/333/355           33/34/4343/443/644
    lg-g8-16ms     1.0 176 23334 33/753/555/375/5733          33/433/643/443/6664
    pixel1-40ms    1.0 172 23334 53/537/773/333/3535          34/444/434/464/6664
    note10-16ms    1.0 192 24334 33/5533/553/553/3753         33/3443/443/443/6443
    note8-49ms     1.0 176 23334 53/537/773/333/3535          34/444/434/464/6664
    pixel2-50ms    1.0 208 22224 33/33/35/57/3575             34/33/36/64/6343
    pixel2-62ms    1.0 208 23334 33/753/555/375/5733          33/433/643/443/6664
    s7edge-88ms    1.0 192 23344 53/533/755/5535/3733         34/664/463/6644/6664
    note8-65ms     1.0 204 23334 73/353/733/533/5553          33/443/664/664/6443
    lg-g8-24ms     1.0 220 23334 33/753/555/375/5733          33/433/643/443/6664
    pixel1-58ms    1.0 220 23334 33/753/555/375/5733          33/433/643/443/6664
    note10-22ms    1.0 224 23334 33/533/755/533/3333          33/344/444/464/6663
    note10-30ms    1.2 224 23334 33/533/553/333/3333          33/434/443/644/6643
    pixel1-79ms    1.2 224 22344 33/53/753/5333/3333          33/34/443/6443/6663
    flops-389m     1.2 224 23344 33/553/553/5533/3373         33/363/443/6444/6663
    note10-41ms    1.2 220 23444 33/733/7333/3533/3333        34/446/6634/6664/6663
    flops-482m     1.2 224 34444 533/5353/5533/5735/7333      333/4443/4633/6664/6663
    note10-50ms    1.2 220 34443 533/5335/7735/7533/333       366/4663/6644/6666/666
    pixel1-132ms   1.2 228 24444 53/5535/7535/5555/3353       36/4663/6664/6664/6663
    flops-595m     1.2 236 34444 353/5535/7535/3573/3353      343/4463/6634/6664/6663
    pixel1-143ms   1.2 240 34444 533/5535/7533/5353/3353      363/6663/6664/6664/6663
    note10-64ms    1.2 260 34444 333/5335/5537/5333/3353      363/4633/6644/6664/6663
"""


def _child(multiplier: str, resolution: str, depths: str, kernels: str, expansions: str) -> ChildSpec:
    space = SPACES[multiplier]
    of_layers = ([[int(c) for c in stage] for stage in text.split("/")] for text in (kernels, expansions))
    kernel, expansion = of_layers
    return space.spec(
        resolution=int(resolution),
        depths=[1, *map(int, depths)],
        widths=[stage.widths[0] for stage in space.stages],
        kernels=[3, *kernel],
        expansions=[1, *expansion],
    )


NETS: dict[str, ChildSpec] = {name: _child(*rest) for name, *rest in map(str.split, TABLE.strip().splitlines())}
