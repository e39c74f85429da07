// A zip archive with one file, and such a file of one.
const zlib = require('zlib');

const crc = bytes => {
  let sum = ~0;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return ~sum >>> 0;
};

exports.pack = (name, text) => {
  const [path, plain] = [Buffer.from(name), Buffer.from(text)];
  const data = zlib.deflateRawSync(plain);
  // Version, flags, method, time, date, then what is known of the content.
  const common = Buffer.alloc(26);
  [20, 0, 8, 0, 0x21].forEach((value, at) => common.writeUInt16LE(value, 2 * at));
  [crc(plain), data.length, plain.length].forEach((value, at) => common.writeUInt32LE(value, 10 + 4 * at));
  common.writeUInt16LE(path.length, 22);
  const local = Buffer.concat([Buffer.from('PK\x03\x04'), common, path, data]);
  const entry = Buffer.concat([Buffer.from('PK\x01\x02\x14\x00'), common, Buffer.alloc(14), path]);
  const end = Buffer.alloc(18);
  [0, 0, 1, 1].forEach((value, at) => end.writeUInt16LE(value, 2 * at));
  end.writeUInt32LE(entry.length, 8);
  end.writeUInt32LE(local.length, 12);
  return Buffer.concat([local, entry, Buffer.from('PK\x05\x06'), end]);
};

// By the list at the end: what stands before a file may not know its length.
exports.unpack = archive => {
  const entry = archive.readUInt32LE(archive.lastIndexOf('PK\x05\x06') + 16);
  const method = archive.readUInt16LE(entry + 10);
  const length = archive.readUInt32LE(entry + 20);
  const local = archive.readUInt32LE(entry + 42);
  const begin = local + 30 + archive.readUInt16LE(local + 26) + archive.readUInt16LE(local + 28);
  const data = archive.subarray(begin, begin + length);
  return (method === 8 ? zlib.inflateRawSync(data) : data).toString();
};
