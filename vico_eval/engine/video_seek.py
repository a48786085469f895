"""Seeking frames of a video: decoding starts at the key frame before a requested frame, not at the start of the file.

Frames are identified by the time in their packets, so that seeking finds the same frames as reading from the start. If
packets don't identify them with certainty, nothing is sought.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import NamedTuple

import av

_INDEXED = {"mov", "mp4", "matroska", "webm"}
"""FFmpeg's names of containers that mark key frames. Others have guessed marks, or no index, so that seeking is
unreliable."""


class _Packet(NamedTuple):
    """A frame before decoding."""

    pts: int
    """Presentation time."""

    sought_at: int
    """Time in the container's index."""

    is_key: bool


class _Jump(NamedTuple):
    """A run of packets to decode."""

    key: _Packet
    wanted: list[int]
    """Times (pts) of the requested frames."""

    num_packets: int


def seek_frames(
    container: av.container.InputContainer, stream: av.VideoStream, wanted: Collection[int]
) -> list[av.VideoFrame] | None:
    """Decode the requested frames, given by their indices in order of time.

    Returns:
        The requested frames, in order; None if seeking saves nothing or might find other frames than reading.
    """
    if not wanted or _INDEXED.isdisjoint(container.format.name.split(",")):
        return None
    packets = _packets(container, stream)
    if packets is None or max(wanted) >= len(packets):
        return None
    jumps = _jumps(packets, sorted(wanted))
    from_start = jumps[-1].num_packets + packets.index(jumps[-1].key)
    if sum(jump.num_packets for jump in jumps) >= from_start:
        return None
    frames: list[av.VideoFrame] = []
    for jump in jumps:
        found = _decode(container, stream, jump)
        if found is None:
            return None
        frames += found
    return frames


def _packets(container: av.container.InputContainer, stream: av.VideoStream) -> list[_Packet] | None:
    """Return all packets in decoding order; None if they don't correspond one to one to decoded frames."""
    packets = []
    # Matroska's index has presentation times, MP4's has decoding times.
    has_shown_times = "matroska" in container.format.name
    for packet in container.demux(stream):
        if not packet.size:
            continue
        sought_at = packet.pts if has_shown_times else packet.dts
        if packet.pts is None or sought_at is None or packet.is_discard or packet.is_corrupt:
            return None
        packets.append(_Packet(packet.pts, sought_at, packet.is_keyframe))
    times = {packet.pts for packet in packets}
    is_whole = not stream.frames or stream.frames == len(packets)
    # Frames shown before the first key frame can't be decoded, and decoders drop some of them.
    begins_with_key = bool(packets) and packets[0].is_key and packets[0].pts == min(times)
    return packets if is_whole and begins_with_key and len(times) == len(packets) else None


def _jumps(packets: Sequence[_Packet], wanted: Sequence[int]) -> list[_Jump]:
    """Group requested frames by the last key frame that isn't after them in time.

    A frame that is shown before a key frame but decoded after it may need earlier frames, so it is decoded from the
    previous key frame.
    """
    order = {packet.pts: place for place, packet in enumerate(packets)}
    times = sorted(order)
    # A decoder outputs a frame after all frames that are shown before it.
    last_needed = list(accumulate((order[time] for time in times), max))
    keys = sorted((packet for packet in packets if packet.is_key), key=lambda packet: packet.pts)
    jumps: list[_Jump] = []
    upcoming = 0
    for place in wanted:
        while upcoming < len(keys) and keys[upcoming].pts <= times[place]:
            upcoming += 1
        key = keys[upcoming - 1]
        if not jumps or jumps[-1].key != key:
            jumps.append(_Jump(key, [], 0))
        num_packets = last_needed[place] - order[key.pts] + 1
        jumps[-1] = _Jump(key, [*jumps[-1].wanted, times[place]], num_packets)
    return jumps


def _decode(container: av.container.InputContainer, stream: av.VideoStream, jump: _Jump) -> list[av.VideoFrame] | None:
    """Decode the requested frames of a jump; None if seeking in the container ended elsewhere."""
    container.seek(jump.key.sought_at, stream=stream)
    missing = set(jump.wanted)
    frames: list[av.VideoFrame] = []
    for frame in container.decode(stream):
        # Frames come in order of time.
        if frame.pts is None or (not frames and frame.pts > jump.wanted[0]) or frame.is_corrupt:
            return None
        if frame.pts in missing:
            missing.remove(frame.pts)
            frames.append(frame)
            if not missing:
                return frames
    return None
