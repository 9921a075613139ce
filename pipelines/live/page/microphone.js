// Hands over what the microphone hears, a tenth of a second at a time.
class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.samples = new Float32Array(Math.round(sampleRate / 10));
    this.filled = 0;
  }

  process([channels]) {
    for (const sample of channels[0] ?? []) {
      this.samples[this.filled++] = sample;
      if (this.filled === this.samples.length) {
        this.port.postMessage(this.samples.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);
