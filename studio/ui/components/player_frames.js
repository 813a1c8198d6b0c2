// Nothing here plays a video. Each clip's frames are read once, by seeking, into bitmaps; one clock says which frame it
// is, and every picture is drawn from it in the same task. So the pictures cannot drift apart. Clips too large for the
// bitmaps' room are sought anew for every frame, and drawn once all of them have arrived: slower, and still together.
const PATIENCE_MS = 120;

// A data: address is unpacked here: the exported page forbids itself every connection.
async function bytesOf(address) {
  if (!address.startsWith('data:')) {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error('the server answered ' + answer.status);
    return answer.blob();
  }
  const comma = address.indexOf(',');
  const text = atob(address.slice(comma + 1));
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Blob([bytes], {type: address.slice(5, comma).split(';')[0]});
}

function heard(target, good, ...bad) {
  return new Promise((done, fail) => {
    target.addEventListener(good, done, {once: true});
    for (const each of bad) target.addEventListener(each, () => fail(new Error('the browser cannot decode it')), {once: true});
  });
}

class Clip {
  constructor({title, facts, scores}) {
    Object.assign(this, {title, facts: facts || [], scores: scores || null, bitmaps: [], numbers: [], picture: null, at: 0});
  }

  async open(url, {fps, num_frames}) {
    this.address = URL.createObjectURL(await bytesOf(typeof url === 'string' ? url : url.url));
    const video = this.video = make('video');
    video.muted = true;
    video.playsInline = true;
    video.preload = 'auto';
    const data = heard(video, 'loadeddata', 'error');
    video.src = this.address;
    try {
      await data;
    } catch (error) {
      this.letGo();
      throw error;
    }
    this.fps = fps;
    this.width = video.videoWidth;
    this.height = video.videoHeight;
    this.count = Number.isFinite(video.duration) ? Math.max(1, Math.round(video.duration * fps)) : num_frames;
  }

  // The middle of the frame's time: its very beginning belongs, by rounding, to the frame before as often as not.
  // A browser that can says which picture it then presented; that number, not the one asked for, is what is reported.
  // The first it says may still be about the picture before, so it is heard until it says the one asked for.
  async read(index) {
    const {video, fps} = this;
    const asked = Math.min(index, this.count - 1);
    let at = null;
    let waiting = Boolean(video.requestVideoFrameCallback);
    const seen = new Promise((done) => {
      const listen = () => video.requestVideoFrameCallback((_, about) => {
        if (!waiting) return;
        at = Math.floor(about.mediaTime * fps + 0.01);
        if (at === asked) done();
        else listen();
      });
      if (waiting) listen();
    });
    // A video that is let go of is emptied, and seeks no more.
    const sought = heard(video, 'seeked', 'error', 'emptied');
    video.currentTime = (asked + 0.5) / fps;
    await sought;
    // It says nothing when the picture is the one already there, nor in a page that nobody sees.
    if (waiting && !document.hidden) await Promise.race([seen, new Promise((done) => setTimeout(done, PATIENCE_MS))]);
    waiting = false;
    return {bitmap: await createImageBitmap(video), at: at ?? asked};
  }

  letGo() {
    if (!this.video) return;
    this.video.removeAttribute('src');
    this.video.load();
    URL.revokeObjectURL(this.address);
    this.video = null;
  }

  close() {
    [...this.bitmaps, this.picture].forEach((bitmap) => bitmap?.close());
    this.letGo();
  }
}

// One comparison, from its first byte on. Where another takes its place it is cancelled: what it holds is let go of at
// once, and what it still awaits when that comes.
class Reading {
  constructor(record) {
    Object.assign(this, {record, clips: [], kept: false, ready: false, seeking: false, cancelled: false});
  }

  cancel() {
    this.cancelled = true;
    this.ready = false;
    this.clips.forEach((clip) => clip.close());
    this.clips = [];
  }

  // Nothing more is done for a comparison that is not wanted any more.
  claim(...arrived) {
    if (!this.cancelled) return;
    arrived.forEach((each) => each.close());
    throw new Error('Another comparison has taken its place.');
  }

  async open(tell) {
    const {record} = this;
    const tried = await Promise.allSettled(record.clips.map(async (given, i) => {
      const clip = new Clip(given);
      await clip.open(given.url, record);
      this.claim(clip);
      this.clips[i] = clip;
    }));
    const bad = tried.findIndex((one) => one.status === 'rejected');
    if (bad >= 0) throw new Error(record.clips[bad].title + ' cannot be shown: ' + tried[bad].reason.message + '.');
    const frames = (clip) => Math.min(clip.count, record.num_frames);
    const room = this.clips.reduce((sum, clip) => sum + 4 * clip.width * clip.height * frames(clip), 0);
    this.kept = room <= record.cache_megabytes * 1e6;
    const total = this.clips.length * record.num_frames;
    let count = 0;
    await Promise.all(this.clips.map(async (clip) => {
      for (let i = 0; i < (this.kept ? frames(clip) : 1); i++) {
        const {bitmap, at} = await clip.read(i);
        this.claim(bitmap);
        if (this.kept) {
          clip.bitmaps.push(bitmap);
          clip.numbers.push(at);
        }
        if (i === 0) [clip.picture, clip.at] = [bitmap, at];
        if (++count % 8 === 0) tell(count / total);
      }
      if (this.kept) clip.letGo();
    }));
  }

  turnTo(index) {
    for (const clip of this.clips) {
      const i = Math.min(index, clip.bitmaps.length - 1);
      [clip.picture, clip.at] = [clip.bitmaps[i], clip.numbers[i]];
    }
  }

  async seek(index) {
    const {clips} = this;
    const found = await Promise.all(clips.map((clip) => clip.read(index)));
    this.claim(...found.map(({bitmap}) => bitmap));
    clips.forEach((clip, i) => {
      clip.picture.close();
      [clip.picture, clip.at] = [found[i].bitmap, found[i].at];
    });
  }
}

let reading = new Reading(null);
