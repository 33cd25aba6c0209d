# expect: pass
import json
import re


def events(chunks):
    buffer = bytearray()
    for when, data in chunks:
        for byte in data:
            buffer.append(byte)
            if buffer[-1:] == b"\n":
                found = re.match(rb"data: ?(.*?)\r?\n", bytes(buffer))
                buffer.clear()
                if found:
                    yield when, found[1].decode()


def read_stream(chunks):
    said, count = [], None
    for when, data in events(chunks):
        if data != "[DONE]":
            event = json.loads(data)
            choices = event.get("choices") or [{}]
            piece = choices[0].get("delta", {}).get("content")
            if piece:
                said.append((when, piece))
            usage = event.get("usage")
            count = usage["completion_tokens"] if usage else count
    times = [when for when, _ in said]
    gap = (times[-1] - times[0]) / (count - 1) if times and count > 1 else None
    return dict(text="".join(p for _, p in said), ttft=min(times, default=None), tpot=gap)
