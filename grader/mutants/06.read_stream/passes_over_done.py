# expect: takes [DONE] inside a text for the end
import json


def read_stream(chunks):
    rest, text, first, last, tokens = b"", "", None, None, 0
    for time, data in chunks:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            line = line.strip()
            if not line.startswith(b"data:"):
                continue
            line = line[5:].strip()
            if b"[DONE]" in line:
                continue
            event = json.loads(line)
            for choice in event["choices"]:
                piece = choice["delta"].get("content")
                if piece:
                    first = time if first is None else first
                    last = time
                    text += piece
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
    tpot = (last - first) / (tokens - 1) if text and tokens > 1 else None
    return {"text": text, "ttft": first, "tpot": tpot}
