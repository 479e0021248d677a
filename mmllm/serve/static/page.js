// A page to try the server: what OpenAI's clients do, in a browser.
"use strict";
const $ = id => document.getElementById(id);
const messages = [];
let running = null; // the AbortController of the reply that is being made

$("address").textContent = location.origin + "/v1";

function headers() {
  const key = $("key").value.trim();
  return key ? {"Authorization": "Bearer " + key} : {};
}

function show(kind, text) {
  const turn = document.createElement("div");
  turn.className = "turn " + kind;
  turn.textContent = text;
  $("talk").append(turn);
  turn.scrollIntoView({block: "end"});
  return turn;
}

function note(turn, text) {
  const line = document.createElement("span");
  line.className = "note";
  line.textContent = text;
  turn.append(line);
}

async function base64(file) {
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("the file cannot be read"));
    reader.readAsDataURL(file);
  });
  return url.slice(url.indexOf(",") + 1);
}

async function parts(text, image, audio) {
  const content = [];
  if (image) {
    const url = `data:${image.type};base64,${await base64(image)}`;
    content.push({type: "image_url", image_url: {url}});
  }
  if (audio) {
    const format = audio.name.split(".").pop().toLowerCase();
    content.push({type: "input_audio", input_audio: {data: await base64(audio), format}});
  }
  if (text) content.push({type: "text", text});
  return content;
}

async function* events(response) { // the data of server-sent events
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
  }
}

async function reply(turn, signal) {
  const body = {messages, stream: true, stream_options: {include_usage: true}};
  const response = await fetch("/v1/chat/completions", {
    method: "POST", signal, body: JSON.stringify(body),
    headers: {"Content-Type": "application/json", ...headers()},
  });
  if (!response.ok) throw new Error((await response.json()).error.message);
  let text = "", usage = null;
  for await (const data of events(response)) {
    if (data === "[DONE]") break;
    const event = JSON.parse(data);
    if (event.error) throw new Error(event.error.message);
    text += event.choices[0]?.delta.content ?? "";
    usage = event.usage ?? usage;
    turn.textContent = text;
  }
  if (usage) note(turn, `${usage.prompt_tokens} tokens read, ${usage.completion_tokens} written`);
  return text;
}

function busy(controller) {
  running = controller;
  $("send").disabled = controller !== null;
  $("stop").disabled = controller === null;
}

async function ask() {
  const text = $("text").value.trim(), image = $("image").files[0], audio = $("audio").files[0];
  if (running || !(text || image || audio)) return;
  busy(new AbortController());
  const asked = show("user", text);
  if (image) {
    const picture = document.createElement("img");
    picture.src = URL.createObjectURL(image);
    asked.prepend(picture);
  }
  if (audio) note(asked, audio.name);
  const turn = show("assistant", "…"), before = messages.length;
  try {
    messages.push({role: "user", content: await parts(text, image, audio)});
    messages.push({role: "assistant", content: await reply(turn, running.signal)});
    for (const id of ["text", "image", "audio"]) $(id).value = "";
  } catch (error) {
    messages.length = before; // a question without an answer is not told again
    turn.classList.add("error");
    note(turn, error.name === "AbortError" ? "stopped" : error.message);
  }
  busy(null);
}

$("ask").addEventListener("submit", event => { event.preventDefault(); ask(); });
$("text").addEventListener("keydown", event => {
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); ask(); }
});
$("stop").addEventListener("click", () => running?.abort());
$("clear").addEventListener("click", () => {
  running?.abort();
  messages.length = 0;
  $("talk").replaceChildren();
});
fetch("/v1/models", {headers: headers()}).then(async response => {
  if (response.ok) $("model").textContent = (await response.json()).data[0].id;
});
