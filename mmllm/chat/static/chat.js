// The conversation and its composer in the browser: plain JavaScript, no build step; anywidget calls
// `render`. nbs/10_chat/06_view.ipynb has the table of messages between this file and Python.
const UPLOAD_CHUNK = 1048576    // bytes of a file in one message
const RECORDING_SECONDS = 300   // longest recording
const ANSWER_TIMEOUT = 15_000   // milliseconds without an answer, after which the view says so
const HEARTBEAT = 5_000         // milliseconds between two signs of life while a reply is made

/* The pieces that everything is made of: icons, buttons that say their name to a screen reader, and
the clipboard. */
const ICONS = { // strokes in a box of 24 by 24
  face: "M5 15v-4M9 18V8M13 15V9M17 5.5a1.5 1.5 0 1 0 .1 0M17 11v6M21 13v2",
  you: "M12 4a4 4 0 1 0 .1 0M4.5 20a7.5 7.5 0 0 1 15 0",
  settings: "M4 7h9M19 7h1M4 17h1M11 17h9M13 7a3 3 0 1 0 6 0a3 3 0 1 0-6 0M5 17a3 3 0 1 0 6 0a3 3 0 1 0-6 0",
  undo: "M9 14L4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3", save: "M12 4v11M7 11l5 5 5-5M5 20h14",
  clear: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5", close: "M6 6l12 12M18 6L6 18", done: "M5 12l5 5L19 7",
  attach: "M20 11l-8.5 8.5a5 5 0 0 1-7-7L13 4a3.3 3.3 0 0 1 4.7 4.7L9.4 17A1.7 1.7 0 0 1 7 14.6L14.5 7",
  mic: "M12 3a3 3 0 0 1 3 3v6a3 3 0 0 1-6 0V6a3 3 0 0 1 3-3zM6 11.5a6 6 0 0 0 12 0M12 17.5V21",
  talk: "M4 5h16v11H10l-5 4v-4H4zM8 9h8M8 12h5", send: "M12 19V5M6 11l6-6 6 6", stop: "M7 7h10v10H7z", down: "M12 5v14M6 13l6 6 6-6",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1", edit: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3", again: "M20 11a8 8 0 1 0-2.3 6.3M20 5v6h-6",
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg")
  svg.setAttribute("viewBox", "0 0 24 24")
  svg.setAttribute("class", "mm-icon")
  svg.setAttribute("aria-hidden", "true")
  svg.append(document.createElementNS(svg.namespaceURI, "path"))
  svg.firstChild.setAttribute("d", ICONS[name])
  return svg
}

function make(tag, cls = "", ...inside) {
  const o = document.createElement(tag)
  o.className = cls
  o.append(...inside)
  return o
}

function dress(o, shape, label) { // what a button shows, and what it is called
  o.replaceChildren(icon(shape))
  o.title = label
  o.setAttribute("aria-label", label)
  return o
}

function button(shape, label, act, cls = "round") {
  const o = dress(make("button", cls), shape, label)
  o.type = "button"
  o.onclick = act
  return o
}

function words(text, act) { // a button that is a word in a sentence
  const o = make("button", "", text)
  o.type = "button"
  o.onclick = act
  return o
}

async function copy(text, from) { // and show on the button that it was done
  try { await navigator.clipboard.writeText(text) }
  catch { // pages without https have no clipboard
    const o = make("textarea")
    o.value = text
    from.after(o)
    o.select()
    document.execCommand("copy")
    o.remove()
    from.focus()
  }
  const label = from.dataset.label ||= from.title
  dress(from, "done", "Copied")
  setTimeout(() => dress(from, "copy", label), 1500)
}

/* The microphone. The browser samples at 16 kHz, which is what Whisper hears, and the recording becomes
a WAV file. While it runs, a clock and a bar for the loudness show that something arrives. */
const TAP = `registerProcessor("tap", class extends AudioWorkletProcessor {
  process(inputs) { if (inputs[0][0]) this.port.postMessage(inputs[0][0].slice()); return true }
})`

function wav(samples, rate) { // a file of 16-bit mono
  const out = new DataView(new ArrayBuffer(44 + samples.length * 2))
  const text = (at, s) => [...s].forEach((c, i) => out.setUint8(at + i, c.charCodeAt(0)))
  text(0, "RIFF")
  out.setUint32(4, 36 + samples.length * 2, true)
  text(8, "WAVEfmt ")
  out.setUint32(16, 16, true)
  out.setUint16(20, 1, true)
  out.setUint16(22, 1, true)
  out.setUint32(24, rate, true)
  out.setUint32(28, rate * 2, true)
  out.setUint16(32, 2, true)
  out.setUint16(34, 16, true)
  text(36, "data")
  out.setUint32(40, samples.length * 2, true)
  samples.forEach((x, i) => out.setInt16(44 + i * 2, Math.max(-1, Math.min(1, x)) * 32767, true))
  return new File([out.buffer], "recording.wav", { type: "audio/wav" })
}

// records at 16 kHz where the browser can; gives a function that ends it and returns the file
async function microphone(loudness) {
  if (!navigator.mediaDevices)
    throw new Error("browsers lend it to pages from https or localhost only")
  const raw = {
    channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false,
  }
  const stream = await navigator.mediaDevices.getUserMedia({ audio: raw }), pieces = []
  let context = new AudioContext({ sampleRate: 16000 }), source
  const end = async () => {
    stream.getTracks().forEach(track => track.stop())
    await context.close()
  }
  try {
    try { source = context.createMediaStreamSource(stream) }
    catch { // Firefox
      await context.close()
      context = new AudioContext()
      source = context.createMediaStreamSource(stream)
    }
    const url = URL.createObjectURL(new Blob([TAP], { type: "text/javascript" }))
    await context.audioWorklet.addModule(url)
    URL.revokeObjectURL(url)
    const tap = new AudioWorkletNode(context, "tap")
    tap.port.onmessage = e => { pieces.push(e.data); loudness(Math.max(...e.data.map(Math.abs))) }
    source.connect(tap).connect(context.destination)
  } catch (error) { await end(); throw error }
  return async () => {
    await end()
    const all = new Float32Array(pieces.reduce((n, p) => n + p.length, 0))
    pieces.reduce((at, p) => (all.set(p, at), at + p.length), 0)
    return wav(all, context.sampleRate)
  }
}

class Recorder { // the microphone's button, and what stands beside it while it is on
  constructor(take, say) {
    this.take = take
    this.say = say
    const press = () => this.stop ? this.finish(true) : this.start()
    this.key = button("mic", "Record from the microphone", press)
    this.drop = button("close", "Throw the recording away", () => this.finish(false))
    this.time = make("span", "mm-status")
    this.meter = make("div", "mm-meter")
    this.drop.hidden = this.time.hidden = this.meter.hidden = true
  }
  show(on) {
    dress(this.key, on ? "done" : "mic", on ? "Finish the recording" : "Record from the microphone")
    this.key.classList.toggle("rec", on)
    this.drop.hidden = this.time.hidden = this.meter.hidden = !on
  }
  async start() {
    if (this.asking) return
    this.asking = true
    const level = x => Math.min(100, 140 * Math.sqrt(x)) + "%"
    const loudness = x => this.meter.style.setProperty("--level", level(x))
    try { this.stop = await microphone(loudness) }
    catch (error) { return this.say("No microphone: " + error.message) }
    finally { this.asking = false }
    if (this.gone) return this.finish(false) // the view was closed meanwhile
    const began = Date.now(), tick = () => {
      const s = Math.floor((Date.now() - began) / 1000)
      this.time.textContent = `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`
      if (s >= RECORDING_SECONDS) this.finish(true)
    }
    this.say("")
    this.show(true)
    tick()
    this.clock = setInterval(tick, 250)
  }
  async finish(keep) {
    const stop = this.stop
    this.stop = null
    clearInterval(this.clock)
    this.show(false)
    if (!this.gone) this.key.focus()
    const file = stop && await stop()
    if (file && keep) this.take(file)
  }
}

/* Files on their way to the kernel, as chips that say whether they were taken and, if not, why. */
class Files { // what is attached to the next message
  constructor(send) {
    this.send = send
    this.list = []
    this.limit = 32 << 20
    this.chips = make("div", "mm-files")
  }
  get good() { return this.list.filter(f => f.state !== "bad") }
  get onTheWay() { return this.list.some(f => f.state === "sent") }
  async add(files) { for (const file of files) await this.upload(file) }

  async upload(file) {
    const name = file.name || "pasted", id = crypto.getRandomValues(new Uint32Array(2)).join("-")
    const f = { id, state: "sent", label: make("span", "", name) }
    const away = button("close", "Remove " + name, () => this.remove(f))
    f.chip = make("div", "mm-chip", f.label, away)
    this.list.push(f)
    this.chips.append(f.chip)
    const size = (file.size / 2 ** 20).toFixed(0), limit = this.limit >> 20
    if (file.size > this.limit)
      return this.refuse(f, `${name} has ${size} MiB, the limit is ${limit} MiB`)
    if (!file.size) return this.refuse(f, `${name} is empty`)
    if (file.type.startsWith("image/")) this.thumbnail(f, file)
    try {
      for (let at = 0; at < file.size && this.list.includes(f); at += UPLOAD_CHUNK) {
        const chunk = await file.slice(at, at + UPLOAD_CHUNK).arrayBuffer()
        this.send("upload", { id, name, last: at + UPLOAD_CHUNK >= file.size }, [chunk])
      }
    } catch { // a folder, or a file that is gone
      if (this.list.includes(f)) this.refuse(f, `${name} cannot be read`)
    }
  }
  thumbnail(f, file) {
    const picture = make("img")
    picture.alt = ""
    picture.src = URL.createObjectURL(file)
    picture.onload = () => URL.revokeObjectURL(picture.src)
    picture.onerror = () => picture.remove()
    f.chip.prepend(picture)
  }
  remove(f) {
    this.list.splice(this.list.indexOf(f), 1)
    f.chip.remove()
    this.send("remove", { id: f.id })
  }
  refuse(f, why) {
    f.state = "bad"
    f.chip.classList.add("bad")
    f.chip.setAttribute("role", "alert")
    f.label.textContent = why
  }
  checked(id, error) { // the other side looked at it
    const f = this.list.find(f => f.id === id)
    if (f && error) this.refuse(f, error)
    else if (f) { f.state = "good"; f.chip.dataset.ok = "1" }
  }
  take() { // the ids, and the composer is empty again
    const ids = this.good.map(f => f.id)
    this.list = []
    this.chips.replaceChildren()
    return ids
  }
}

/* The conversation. A turn is drawn again whenever it changes, but its pictures and sounds only if they
are others: whoever listens to one is not interrupted. The view follows the newest words until somebody
scrolls up. */
const OPEN = ["waiting", "writing"]

class Log { // the turns, each with a half for you and one for the model
  constructor(act) { // {copy, edit, again}: what the buttons below a message do
    this.act = act
    this.turns = []
    this.rows = []
    this.urls = {}
    this.thread = make("div", "mm-thread")
    this.box = make("div", "mm-log", this.thread)
    this.zoom = make("dialog", "mm-zoom")
    this.down = button("down", "To the newest message", () => this.toEnd(), "round mm-down")
    this.down.hidden = true
    this.box.setAttribute("role", "log")
    this.box.setAttribute("aria-label", "Conversation")
    this.box.tabIndex = 0
    this.zoom.setAttribute("aria-label", "The picture, enlarged")
    this.zoom.addEventListener("click", () => this.zoom.close())
    this.stick = true
    this.top = 0 // at the newest words, until somebody scrolls up
    this.box.addEventListener("scroll", () => this.scrolled())
    this.watch = new ResizeObserver(() => { if (this.stick) this.toEnd() })
    this.watch.observe(this.thread)
  }
  scrolled() {
    const top = this.box.scrollTop, end = this.box.scrollHeight - top - this.box.clientHeight < 80
    this.stick = end || (this.stick && top >= this.top)
    this.top = top
    this.down.hidden = this.stick
  }
  toEnd() { this.stick = true; this.box.scrollTop = this.box.scrollHeight; this.down.hidden = true }
  following(change) { change(); if (this.stick) this.toEnd(); else this.down.hidden = false }

  half(who) {
    const o = {}
    for (const part of ["media", "bubble", "stats", "tools"]) o[part] = make("div", "mm-" + part)
    const face = make("div", "mm-face", icon(who === "you" ? "you" : "face"))
    const body = make("div", "mm-body", o.media, o.bubble, o.stats, o.tools)
    o.row = make("div", "mm-row " + who, face, body)
    face.setAttribute("aria-hidden", "true")
    o.row.setAttribute("role", "article")
    o.row.setAttribute("aria-label", who === "you" ? "You" : "mmllm")
    this.thread.append(o.row)
    return o
  }
  row(i) {
    while (this.rows.length <= i) {
      const n = this.rows.length, turn = () => this.turns[n]
      const you = this.half("you"), bot = this.half("bot")
      you.tools.append(button("edit", "Edit this message", () => this.act.edit(n)),
                       button("copy", "Copy this message", e => copy(turn().text, e.currentTarget)))
      bot.again = button("again", "Ask again", () => this.act.again())
      const copyReply = e => copy(turn().reply, e.currentTarget)
      bot.tools.append(button("copy", "Copy this reply", copyReply), bot.again)
      this.rows.push([you, bot])
    }
    return this.rows[i]
  }

  fill(o) { const url = this.urls[o.dataset.key]; if (url && o.src !== url) o.src = url }
  enlarge(key, name) {
    const picture = make("img")
    picture.src = this.urls[key] || ""
    picture.alt = name
    this.zoom.replaceChildren(picture, button("close", "Close", () => this.zoom.close()))
    this.zoom.showModal()
  }
  medium(f) { // one picture or sound
    const o = make(f.kind === "image" ? "img" : "audio")
    o.dataset.key = f.key
    this.fill(o)
    if (f.kind === "audio") {
      o.controls = true
      o.setAttribute("aria-label", f.name)
      const transcript = f.transcript ? `“${f.transcript}”` : ""
      return make("div", "", o, make("div", "mm-transcript", transcript))
    }
    const larger = words("", () => this.enlarge(f.key, f.name))
    o.alt = ""
    larger.title = f.name
    larger.setAttribute("aria-label", "Enlarge " + f.name)
    larger.append(o)
    return larger
  }
  media(you, files) { // only when they changed: whoever listens to one is not interrupted
    const known = JSON.stringify(files)
    if (you.known !== known) {
      you.known = known
      you.media.replaceChildren(...files.map(f => this.medium(f)))
    }
  }

  draw(turn) {
    this.following(() => {
      const [you, bot] = this.row(turn.index), open = OPEN.includes(turn.state)
      this.turns[turn.index] = turn
      this.media(you, turn.files)
      you.bubble.textContent = turn.text
      you.bubble.hidden = !turn.text
      bot.row.dataset.state = turn.state
      bot.tools.hidden = open
      bot.again.hidden = !turn.last
      this.reply(bot, turn.html, open)
      bot.bubble.classList.toggle("failed", turn.state === "failed")
      bot.bubble.removeAttribute("role")
      if (turn.state === "failed") {
        bot.bubble.textContent = turn.error
        bot.bubble.setAttribute("role", "alert")
      }
      const names = turn.names.map(([name, probability]) => this.name(name, probability))
      bot.stats.replaceChildren(...names, turn.stats)
    })
  }
  name(name, probability) { // what CLIP by itself names a picture, with its probability as a bar
    const o = make("b", "", `${name} ${Math.round(probability * 100)}%`)
    o.style.setProperty("--probability", probability * 100 + "%")
    o.title = "what CLIP names, and how sure it is"
    return o
  }
  reply(bot, html, open) { // sanitised on the other side
    bot.bubble.innerHTML = html
    bot.bubble.hidden = !open && !html && bot.row.dataset.state !== "failed"
    bot.bubble.classList.toggle("mm-wait", open && !html)
    if (open) return
    for (const pre of bot.bubble.querySelectorAll("pre")) {
      const code = pre.querySelector("code").textContent
      pre.append(button("copy", "Copy this code", e => copy(code, e.currentTarget)))
    }
  }
  stream(index, html) {
    if (this.turns[index]) this.following(() => this.reply(this.row(index)[1], html, true))
  }
  truncate(n) { // n turns stay
    for (const pair of this.rows.splice(n)) pair.forEach(o => o.row.remove())
    this.turns.length = Math.min(n, this.turns.length)
  }
  arrived(root, key, mime, data) {
    this.urls[key] = this.urls[key] || URL.createObjectURL(new Blob([data], { type: mime }))
    root.querySelectorAll("[data-key]").forEach(o => this.fill(o))
  }
  close() {
    this.watch.disconnect()
    Object.values(this.urls).forEach(url => URL.revokeObjectURL(url))
  }
}

/* The head says who answers; an empty conversation says how to begin. */
class Head { // who answers, and what can be done with the whole conversation
  constructor(send, open) {
    this.send = send
    this.status = make("div", "mm-status")
    this.bar = make("progress", "mm-load")
    this.gear = button("settings", "Settings", open)
    this.gear.setAttribute("aria-expanded", "false")
    this.undo = button("undo", "Undo", () => send("undo"))
    this.clear = button("clear", "Clear", () => send("clear"))
    this.save = button("save", "Export", () => { this.saving = true; send("export") })
    const face = make("div", "mm-face", icon("face"))
    face.setAttribute("aria-hidden", "true")
    this.status.setAttribute("role", "status")
    this.bar.setAttribute("aria-label", "Loading the model")
    const who = make("div", "mm-who", make("div", "mm-title", "mmllm"), this.status)
    this.el = make("div", "mm-head", face, who, this.undo, this.save, this.clear, this.gear)
  }
  about({ state, text }) {
    this.status.dataset.state = state
    this.status.replaceChildren(make("span", "", text))
    this.status.title = text
    if (state === "failed") this.status.append(words("Try again", () => this.send("load")))
    this.bar.hidden = state !== "loading" // it has no value: nobody knows how long that takes
  }
  filled(any) { this.undo.disabled = this.save.disabled = this.clear.disabled = !any }
}

function welcome(examples, act) { // what stands where the conversation will be
  const face = make("div", "mm-face", icon("face")), list = make("div", "mm-examples")
  face.setAttribute("aria-hidden", "true")
  examples.forEach((example, n) => {
    const shape = { audio: "mic", image: "attach", text: "talk" }[example.kind]
    const thumb = make("span", "mm-thumb", icon(shape))
    if (example.key) { // its picture comes by itself
      const picture = make("img")
      picture.alt = ""
      picture.hidden = true
      picture.dataset.key = example.key
      thumb.append(picture)
      picture.onload = () => { picture.hidden = false; thumb.replaceChildren(picture) }
    }
    list.append(words("", () => act(n)))
    list.lastChild.append(thumb, example.text)
  })
  return make("div", "mm-empty", face, make("h2", "", "What shall we look at?"),
    make("p", "", "Attach, drop or paste pictures and sounds, or record your voice."), list)
}

/* Last, the composer and the messages from this side. If a question gets no answer at all (a dead
kernel, or one that is busy with a cell), the view says so and gives the words back. */
function render({ model, el }) {
  const send = (kind, content = {}, buffers) => model.send({ kind, ...content }, undefined, buffers)
  const root = make("div", "mm-chat"), text = make("textarea"), pick = make("input")
  const note = make("span", "mm-note"), banner = make("div", "mm-banner")
  const drop = make("div", "mm-drop", "Drop pictures and sounds here")
  let busy = false, editing = null, draft = "", patience = null, late = null, hello = make("div")

  const files = new Files(send), head = new Head(send, () => drawer())
  const recorder = new Recorder(file => files.upload(file), say)
  const log = new Log({ edit, again: () => { if (!busy) { pending(); send("retry") } } })
  const attach = button("attach", "Attach pictures or sounds", () => pick.click())
  const press = e => { if (e.detail < 2) busy ? stop() : submit() } // a double click is one
  const go = button("send", "Send the message", press, "round go")
  const recording = [recorder.key, recorder.drop, recorder.time, recorder.meter]
  const bar = make("div", "mm-bar", attach, ...recording, note, go)
  const box = make("div", "mm-box", files.chips, banner, text, pick, bar)
  const middle = make("div", "mm-middle", head.bar, log.box, log.down)
  root.append(head.el, middle, make("div", "mm-foot", box), drop, log.zoom)
  el.append(root)

  text.rows = 1
  text.placeholder = "Write a message"
  text.setAttribute("aria-label", "Message: Enter sends, Shift and Enter begins a line")
  note.setAttribute("role", "status")
  banner.hidden = drop.hidden = pick.hidden = true
  pick.type = "file"
  pick.multiple = true
  pick.setAttribute("aria-label", "Files")
  pick.accept = "image/jpeg,image/png,image/webp,image/gif,.wav,.flac,.ogg,.mp3"
  const warning = make("span", "", "You are editing an earlier message; what came after it goes.")
  banner.append(warning, words("Cancel", () => edit(null)))
  // their keys are no commands of JupyterLab; in the composer Control+S still saves
  for (const o of [head.el, log.box, bar, files.chips])
    o.dataset.lmSuppressShortcuts = "true"

  function say(sentence, action) { note.replaceChildren(sentence, ...(action ? [" ", action] : [])) }
  function grow() {
    text.style.height = "auto"
    if (text.scrollHeight) text.style.height = Math.min(text.scrollHeight, 160) + "px"
  }
  function write(sentence) { text.value = sentence; grow() }
  function show() { // what follows from the state
    dress(go, busy ? "stop" : "send", busy ? "Stop the reply" : "Send the message")
    log.box.setAttribute("aria-busy", busy)
    hello.hidden = log.rows.length > 0
    head.filled(log.rows.length > 0)
  }
  function labelOf(field) { return field.querySelector(".widget-label").textContent }
  function drawer(open) {
    const view = root.closest(".mm-view"), is = view?.classList.toggle("mm-open", open) || false
    head.gear.setAttribute("aria-expanded", is)
    if (!is) return
    view.querySelector(".mm-drawer input")?.focus()
    for (const o of view.querySelectorAll(".noUi-handle")) // ipywidgets gives its sliders no name
      o.setAttribute("aria-label", labelOf(o.closest(".widget-inline-hbox")))
    // the fields keep their keys to themselves
    view.querySelector(".mm-drawer").addEventListener("keydown", leave, true)
  }
  function leave(e) {
    if (e.key !== "Escape") return
    document.activeElement.blur()
    drawer(false)
    head.gear.focus() // what was typed is taken
  }
  function edit(i) { // turn i in the composer; null: back to what was being written
    if (editing === null && i !== null) draft = text.value
    editing = i
    banner.hidden = i === null
    write(i === null ? draft : log.turns[i].text)
    text.focus()
    if (i === null) draft = ""
  }
  function wait(sentence) { // if nobody answers, say so and give the words back
    clearTimeout(patience)
    patience = setTimeout(() => {
      busy = false
      show()
      say("The kernel does not answer: it is busy with a cell, or it has ended.")
      if (!text.value) { late = sentence; write(sentence) }
    }, ANSWER_TIMEOUT)
  }
  function pending(sentence = "") { busy = true; log.toEnd(); show(); wait(sentence) }
  function stop() { send("stop"); wait("") }
  function submit() {
    const kept = editing === null ? files.good.length : log.turns[editing].files.length
    if (recorder.stop) return say("Finish the recording first, or throw it away.")
    if (files.onTheWay) return say("A file is still on its way.")
    if (editing !== null && files.good.length)
      return say("An edited message keeps its own files: remove what you attached, or cancel.")
    if (!text.value.trim() && !kept) return
    pending(text.value)
    say("")
    if (editing === null) send("send", { text: text.value, files: files.take() })
    else send("edit", { turn: editing, text: text.value })
    draft = ""
    edit(null)
  }

  const on = {
    reset: m => {
      log.truncate(0)
      files.limit = m.limit
      busy = m.busy
      hello.remove()
      hello = welcome(m.examples, n => { if (!busy) { pending(); send("example", { n }) } })
      log.thread.append(hello)
      m.turns.forEach(turn => log.draw(turn))
      head.about(m.model)
      show()
    },
    turn: m => {
      if (late !== null && OPEN.includes(m.turn.state)) { // it was only late
        if (late === m.turn.text && late === text.value) { write(""); say("") }
        late = null
      }
      log.draw(m.turn)
      show()
    },
    stream: m => log.stream(m.index, m.html),
    truncate: m => {
      log.truncate(m.n)
      if (editing !== null && editing >= m.n) edit(null)
      show()
    },
    state: m => { busy = m.busy; show() },
    model: m => head.about(m),
    uploaded: m => files.checked(m.id, m.error),
    note: m => say(m.text, m.restore && words("Bring it back", () => {
      say("")
      text.focus()
      send("restore")
    })),
    media: (m, buffers) => log.arrived(root, m.key, m.mime, buffers[0]),
    download: (m, buffers) => {
      if (!head.saving) return // another view asked
      head.saving = false
      const a = make("a")
      a.download = m.name
      a.href = URL.createObjectURL(new Blob([buffers[0]], { type: "text/markdown" }))
      a.click()
      setTimeout(() => URL.revokeObjectURL(a.href), 1000)
    },
  }
  const listen = (m, buffers) => { clearTimeout(patience); on[m.kind]?.(m, buffers) }
  model.on("msg:custom", listen)

  root.addEventListener("keydown", e => {
    if (!e.ctrlKey && !e.metaKey) e.stopPropagation()
    if (e.isComposing || e.keyCode === 229) return // a word of several keys
    if (e.key === "Escape" && !log.zoom.open) {
      if (editing !== null) edit(null)
      else if (busy) stop()
      else drawer(false)
    }
    if (e.target !== text) return
    if (e.key === "Enter" && !e.shiftKey) { e.preventDefault(); if (!busy) submit() }
    if (e.key === "ArrowUp" && !text.value && !busy && log.turns.length) {
      e.preventDefault()
      edit(log.turns.length - 1)
    }
  })
  text.addEventListener("input", grow)
  text.addEventListener("paste", e => {
    const list = [...(e.clipboardData?.files || [])]
    e.stopPropagation()
    if (list.length) { e.preventDefault(); files.add(list) }
  })
  const hover = on => e => {
    if (e.dataTransfer?.types.includes("Files")) {
      e.preventDefault()
      e.stopPropagation()
      drop.hidden = !on
    }
  }
  root.addEventListener("dragenter", hover(true))
  root.addEventListener("dragover", hover(true))
  root.addEventListener("dragleave", e => {
    if (!root.contains(e.relatedTarget)) drop.hidden = true
  })
  root.addEventListener("drop", e => { hover(false)(e); files.add([...e.dataTransfer.files]) })
  root.addEventListener("pointerdown", e => { if (!head.gear.contains(e.target)) drawer(false) })
  pick.addEventListener("change", () => { files.add([...pick.files]); pick.value = "" })
  const close = () => send("close")
  const heartbeat = setInterval(() => { if (busy) send("heartbeat") }, HEARTBEAT)
  window.addEventListener("beforeunload", close, true)
  show()
  send("ready")
  return () => {
    window.removeEventListener("beforeunload", close, true)
    clearInterval(heartbeat)
    model.off("msg:custom", listen)
    clearTimeout(patience)
    recorder.gone = true
    recorder.finish(false)
    log.close()
  }
}
export default { render }
