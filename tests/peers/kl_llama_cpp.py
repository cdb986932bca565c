"""How far a quantised GGUF's answers are from its own weights computed in float32: here and in llama.cpp.

    pip install llama-cpp-python numpy           (builds llama.cpp: a C++ compiler and a few minutes)
    python kl_llama_cpp.py --model gemma-3-270m-q4_k_m.gguf --lichen target/release/lichen \
        --lichen-host target/release/lichen-host --work /tmp/kl

`lichen-host quantize --format f32` writes the file's values, dequantised, as float32 (four bytes a parameter in --work). Then
four programs give the logits of every position of a few short texts: Lichen and llama.cpp on the float32 file, Lichen and
llama.cpp on the file itself. Printed per text, in nats a token: KL(llama.cpp f32 || Lichen f32), which is what two ways to add
floats differ by; and for the file itself KL(f32 || Lichen) and KL(f32 || llama.cpp), of which the f32 is each program's own.
Exit code 1 when the two float32 programs differ by more than 1e-4, or when Lichen is further from f32 than llama.cpp is by more
than a quarter.
"""

import argparse
import pathlib
import struct
import subprocess
import sys

import numpy
from llama_cpp import Llama

TEXTS = {
    "English": "The river rises in the hills and flows east for nearly eight hundred kilometres before it reaches the sea. "
               "Its water is shared by two states, which have argued about it for more than a hundred years.",
    "Hindi": "नदी पहाड़ियों से निकलती है और समुद्र तक पहुँचने से पहले लगभग आठ सौ किलोमीटर पूर्व की ओर बहती है। इसका पानी दो राज्यों में बँटता है।",
    "Kannada": "ನದಿಯು ಬೆಟ್ಟಗಳಲ್ಲಿ ಹುಟ್ಟಿ ಸಮುದ್ರವನ್ನು ಸೇರುವ ಮೊದಲು ಸುಮಾರು ಎಂಟು ನೂರು ಕಿಲೋಮೀಟರ್ ಪೂರ್ವಕ್ಕೆ ಹರಿಯುತ್ತದೆ. ಅದರ ನೀರನ್ನು ಎರಡು ರಾಜ್ಯಗಳು ಹಂಚಿಕೊಳ್ಳುತ್ತವೆ.",
    "code": "def mean(values):\n    total = 0.0\n    for value in values:\n        total += value\n    return total / len(values)\n\n"
            "print(mean([1.0, 2.0, 4.0]))\n",
}


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]}: exit code {done.returncode}: {done.stderr.strip()}")


def logits_of_lichen(program, model, tokens, work):
    out = work / "logits.safetensors"
    run(program, "logits", "--model", model, "--tokens", ",".join(map(str, tokens)), "--out", out)
    data = out.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    return numpy.frombuffer(data, numpy.float32, offset=start).reshape(len(tokens), -1)


def logits_of_llama_cpp(llama, tokens):
    llama.reset()
    llama.eval(tokens)
    return numpy.array(llama.scores[:len(tokens)], dtype=numpy.float32)


def log_softmax(logits):
    logits = logits.astype(numpy.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - numpy.log(numpy.exp(logits).sum(axis=1, keepdims=True))


def kl(of, to):
    """Mean over positions of KL(of || to), in nats."""
    p, q = log_softmax(of), log_softmax(to)
    return float((numpy.exp(p) * (p - q)).sum(axis=1).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=pathlib.Path, help="quantised GGUF file")
    parser.add_argument("--lichen", required=True, help="the lichen program")
    parser.add_argument("--lichen-host", required=True, help="the lichen-host program")
    parser.add_argument("--work", required=True, type=pathlib.Path, help="folder for the float32 file")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    exact = arguments.work / f"{arguments.model.stem}-f32.gguf"
    if not exact.exists():
        run(arguments.lichen_host, "quantize", "--model", arguments.model, "--format", "f32", "--out", exact)

    def opened(path):
        return Llama(str(path), n_ctx=512, n_batch=512, n_ubatch=512, n_threads=2, logits_all=True, verbose=False)

    peers = {"exact": opened(exact), "file": opened(arguments.model)}
    failed = False
    print(f"{'text':9}{'tokens':>7}{'f32: peer || lichen':>21}{'f32 || lichen':>15}{'f32 || llama.cpp':>18}")
    for name, text in TEXTS.items():
        tokens = peers["exact"].tokenize(text.encode(), add_bos=True)
        peer = {key: logits_of_llama_cpp(llama, tokens) for key, llama in peers.items()}
        ours = {key: logits_of_lichen(arguments.lichen, path, tokens, arguments.work)
                for key, path in [("exact", exact), ("file", arguments.model)]}
        floats = kl(peer["exact"], ours["exact"])
        of_lichen, of_peer = kl(ours["exact"], ours["file"]), kl(peer["exact"], peer["file"])
        print(f"{name:9}{len(tokens):7}{floats:21.1e}{of_lichen:15.1e}{of_peer:18.1e}")
        # Not `>`: NaN fails too.
        failed |= not floats <= 1e-4 or not of_lichen <= 1.25 * of_peer
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
