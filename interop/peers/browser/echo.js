// echo, which the pages of the browser suite have in common.
const ECHO = '/plexus/echo/1.0.0'

// send writes bytes in pieces of odd sizes, as the stream takes them.
async function send (stream, bytes) {
  for (let at = 0, n = 1; at < bytes.length; at += n, n = n * 3 % 65521 + 1) {
    if (!stream.send(bytes.subarray(at, at + n))) {
      await new Promise((resolve, reject) => {
        stream.addEventListener('drain', resolve, { once: true })
        stream.addEventListener('close', e => reject(e.error ?? new Error('the stream ended')), { once: true })
      })
    }
  }
  await stream.close() // our side of it
}

// echo sends n bytes, and takes them back.
export async function echo (connection, n) {
  const bytes = new Uint8Array(n)
  for (let i = 0; i < n; i += 65536) crypto.getRandomValues(bytes.subarray(i, Math.min(n, i + 65536)))
  const stream = await connection.newStream(ECHO)
  const sent = send(stream, bytes)
  let at = 0
  for await (const piece of stream) {
    for (const b of piece.subarray()) {
      if (b !== bytes[at++]) throw new Error(`byte ${at - 1} of ${n} is wrong`)
    }
  }
  await sent
  if (at !== n) throw new Error(`${at} of ${n} bytes came back`)
}
