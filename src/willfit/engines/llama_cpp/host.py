"""What a server holds in host RAM beyond its buffers, and how that grows while it runs."""

from __future__ import annotations

from willfit.architectures.mixers import Attention, Recurrent
from willfit.engines.llama_cpp.cache.layers import quantized
from willfit.engines.llama_cpp.loading.roles import role_of
from willfit.engines.llama_cpp.loading.weights import Placed
from willfit.engines.llama_cpp.sizing import Sizing
from willfit.engines.llama_cpp.terms import cite
from willfit.estimate import Term, between
from willfit.ggml_types import GGML_TYPES
from willfit.quantities import MIB, ceil_div, format_bytes

#: Saved prompts of a server (`--cache-ram`), and saved states for each slot (`--ctx-checkpoints`).
CACHE_RAM_MIB, CHECKPOINTS = 8192, 32
#: Linux keeps a record (`struct page`) of each page of RAM.
_PAGE, _PAGE_RECORD = 4096, 64


def mapped_in_use(sizing: Sizing) -> int:
    """Bytes of the mapped file that are read for each token: of a table it is a few rows, whatever its size."""
    return sum(one.tensor.bytes for one in _in_use(sizing))


def _in_use(sizing: Sizing) -> list[Placed]:
    return [
        one
        for one in sizing.model.placed
        if one.buffer.place == "CPU_Mapped" and not one.shared and role_of(one.name).op != "get_rows"
    ]


def room_for_files(held: int, room: int) -> int:
    """RAM for mapped files, of which the kernel keeps a record for each page.

    Parameters
    ----------
    held
        Bytes of RAM that the process takes for itself.
    room
        RAM that it can use.
    """
    return max(0, room - ceil_div(room, _PAGE) * _PAGE_RECORD - held)


def from_disk_note(sizing: Sizing, held: int, room: int | None) -> str:
    """What of a mapped file does not stay in RAM and is read from disk again and again; empty if all of it stays.

    Parameters
    ----------
    held, room
        See `room_for_files`; None if that is not known.
    """
    if room is None:
        return ""
    size, place = mapped_in_use(sizing), room_for_files(held, room)
    if size <= place:
        return ""
    experts = any("_exps." in one.name for one in _in_use(sizing))
    chosen = ", as far as their experts are chosen" if experts else ""
    return (
        f"{format_bytes(size - place)} of {format_bytes(size)} of mapped weights do not stay in RAM "
        f"({format_bytes(room)}, less the kernel's page records and {format_bytes(held)} of other memory): "
        f"they are read from disk for each token{chosen}"
    )


def prompt_cache_term(sizing: Sizing) -> Term | None:
    """Saved prompts: none at start, up to the limit; None for programs that save none."""
    settings, era = sizing.settings, sizing.resolved.era
    if settings.program != "server" or not era.saves_prompts:
        return None
    limit = CACHE_RAM_MIB if settings.cache_ram_mib is None else settings.cache_ram_mib
    if not limit:
        return None
    if limit < 0:
        most, text = _whole_state(sizing), "0 B at start, without a limit"
        return between("prompt_cache", 0, 0, most, text, cite(sizing, "prompt cache"))
    text = f"0 B at start, at most {limit} MiB of saved prompts"
    return between("prompt_cache", 0, 0, limit * MIB, text, cite(sizing, "prompt cache"))


def checkpoints_term(sizing: Sizing) -> Term | None:
    """Saved states of layers that cannot go back: windows and recurrent states; None where there are none."""
    settings, resolved = sizing.settings, sizing.resolved
    if settings.program != "server" or not resolved.era.saves_states:
        return None
    count = CHECKPOINTS if settings.ctx_checkpoints is None else settings.ctx_checkpoints
    each = _state_bytes(sizing)
    if not count or not each:
        return None
    most = count * resolved.sequences * each
    text = f"0 B at start, at most {count} of {each} B for each of {resolved.sequences} slots"
    return between("checkpoints", 0, 0, most, text, cite(sizing, "checkpoints"))


def _state_bytes(sizing: Sizing) -> int:
    """What a sequence keeps in layers whose past cannot be cut off."""
    cache = sizing.resolved.context(sizing.settings, sizing.context.flash_attn, False).cache
    size = 0
    for layer in sizing.model.architecture.layers:
        for mixer in layer.mixers:
            if isinstance(mixer, Recurrent):
                size += sum(state.elements for state in mixer.fixed_states) * 4
            elif isinstance(mixer, Attention) and mixer.keeps_cache and not mixer.shares_cache:
                reach = mixer.window or mixer.chunk
                if reach and not cache.full_windows:
                    tokens = min(reach, cache.cells)
                    size += tokens * _row(cache.type_k, mixer.kv_heads * mixer.head_dim)
                    size += tokens * _row(cache.type_v, mixer.kv_heads * mixer.value_dim)
    return size


def _row(type: str, width: int) -> int:
    kind = GGML_TYPES[type]
    return -(-width // kind.block) * kind.bytes if quantized(type) else width * kind.bytes


def _whole_state(sizing: Sizing) -> int:
    """Bytes of all caches: what one saved prompt of full length takes."""
    return sum(sizing.context.keys_values.values()) + sum(sizing.context.states.values())
