// Requests as a client of the forge's services makes them: of node alone, and with the job's token.
const http = require('http');

// Gives the status and the bytes of an answer.
exports.ask = (method, url, body, headers = {}) => new Promise((resolve, reject) => {
  const token = process.env.ACTIONS_RUNTIME_TOKEN;
  const all = { authorization: `Bearer ${token}`, 'content-length': body ? body.length : 0, ...headers };
  const request = http.request(url, { method, headers: all }, answer => {
    const parts = [];
    answer.on('data', part => parts.push(part));
    answer.on('end', () => resolve({ status: answer.statusCode, body: Buffer.concat(parts) }));
  });
  request.on('error', reject);
  request.end(body);
});

// The same in JSON, which must succeed.
exports.call = async (method, url, message, headers = {}) => {
  const body = message && Buffer.from(JSON.stringify(message));
  const all = { 'content-type': 'application/json', ...headers };
  const { status, body: said } = await exports.ask(method, url, body, all);
  if (status >= 300) throw new Error(`${method} ${url}: ${status} ${said}`);
  return status === 204 ? null : JSON.parse(said.toString() || '{}');
};

exports.cache = () => `${process.env.ACTIONS_CACHE_URL}_apis/artifactcache`;
