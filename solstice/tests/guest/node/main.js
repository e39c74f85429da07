const crypto = require('crypto');
const fs = require('fs');
const { ask, call, cache } = require('./ask');
const zip = require('./zip');

const name = process.env.INPUT_NAME;

const sameBytes = (what, got, expected) => {
  if (!got.equals(expected)) throw new Error(`${what} is not what was sent`);
  return `${what}: ${got.length} bytes`;
};

// The first version of the cache's protocol.
async function firstCache() {
  const version = crypto.createHash('sha256').update('first').digest('hex');
  const place = `${cache()}/cache?keys=${name},other&version=${version}`;
  console.log(`before: ${await call('GET', place)}`);
  const { cacheId } = await call('POST', `${cache()}/caches`, { key: name, version });
  const parts = [crypto.randomBytes(1500000), crypto.randomBytes(70000)];
  let sent = 0;
  for (const part of parts) {
    const range = `bytes ${sent}-${sent + part.length - 1}/*`;
    const headers = { 'content-type': 'application/octet-stream', 'content-range': range };
    const { status } = await ask('PATCH', `${cache()}/caches/${cacheId}`, part, headers);
    if (status >= 300) throw new Error(`a part got ${status}`);
    sent += part.length;
  }
  await call('POST', `${cache()}/caches/${cacheId}`, { size: sent });
  const hit = await call('GET', place);
  const { body } = await ask('GET', hit.archiveLocation);
  console.log(`hit: ${hit.cacheKey}`);
  console.log(sameBytes('cache', body, Buffer.concat(parts)));
  const again = await ask('POST', `${cache()}/caches`, Buffer.from(JSON.stringify({ key: name, version })));
  console.log(`again: ${again.status}`);
}

// The second version, where it is announced.
async function secondCache() {
  const calls = `${process.env.ACTIONS_RESULTS_URL}/twirp/github.actions.results.api.v1.CacheService`;
  const version = crypto.createHash('sha256').update('second').digest('hex');
  const entry = { key: name, version };
  const { signed_upload_url } = await call('POST', `${calls}/CreateCacheEntry`, entry);
  const bytes = crypto.randomBytes(100000);
  await ask('PUT', signed_upload_url, bytes, { 'x-ms-blob-type': 'BlockBlob' });
  await call('POST', `${calls}/FinalizeCacheEntryUpload`, { ...entry, size_bytes: String(bytes.length) });
  const wanted = { key: 'other', restore_keys: [name.slice(0, 3)], version };
  const hit = await call('POST', `${calls}/GetCacheEntryDownloadURL`, wanted);
  const { body } = await ask('GET', hit.signed_download_url);
  console.log(`second hit: ${hit.matched_key}`);
  console.log(sameBytes('second cache', body, bytes));
}

async function artifacts() {
  const url = `${process.env.ACTIONS_RESULTS_URL}/twirp/github.actions.results.api.v1.ArtifactService`;
  const claims = JSON.parse(Buffer.from(process.env.ACTIONS_RUNTIME_TOKEN.split('.')[1], 'base64url'));
  const [, run, job] = claims.scp.split(' ').find(scope => scope.startsWith('Actions.Results:')).split(':');
  const ids = { workflow_run_backend_id: run, workflow_job_run_backend_id: job };
  const service = (method, message) => call('POST', `${url}/${method}`, { ...ids, ...message });

  const archive = zip.pack('word', `kept by ${name}\n`);
  const { signedUploadUrl } = await service('CreateArtifact', { name, version: 4 });
  const block = Buffer.from('block-00000000').toString('base64');
  const place = `${signedUploadUrl}${signedUploadUrl.includes('?') ? '&' : '?'}`;
  await ask('PUT', `${place}comp=block&blockid=${encodeURIComponent(block)}`, archive);
  const list = `<?xml version="1.0" encoding="utf-8"?><BlockList><Latest>${block}</Latest></BlockList>`;
  await ask('PUT', `${place}comp=blocklist`, Buffer.from(list), { 'content-type': 'application/xml' });
  const hash = `sha256:${crypto.createHash('sha256').update(archive).digest('hex')}`;
  await service('FinalizeArtifact', { name, size: String(archive.length), hash });

  const { artifacts } = await service('ListArtifacts', {});
  console.log(`artifacts: ${artifacts.map(one => one.name).sort()}`);
  const fetched = async wanted => {
    const address = await service('GetSignedArtifactURL', { name: wanted });
    return (await ask('GET', address.signedUrl || address.signed_url)).body;
  };
  console.log(sameBytes('artifact', await fetched(name), archive));
  const other = process.env.INPUT_LOOK;
  if (other) console.log(`${other} has: ${zip.unpack(await fetched(other)).trim()}`);
  return signedUploadUrl;
}

(async () => {
  console.log(`state: ${process.env.STATE_told}`);
  await firstCache();
  if (process.env.ACTIONS_CACHE_SERVICE_V2) await secondCache();
  const places = [process.env.ACTIONS_CACHE_URL, process.env.ACTIONS_RESULTS_URL, await artifacts()];
  const origins = [...new Set(places.map(place => new URL(place).hostname))];
  fs.appendFileSync(process.env.GITHUB_OUTPUT, `places=${origins}\n`);
  fs.appendFileSync(process.env.GITHUB_STATE, 'kept=by main\n');
})().catch(error => {
  console.log(error);
  process.exitCode = 1;
});
