// Behind the last step: the services are there still.
const { ask, cache } = require('./ask');

(async () => {
  const { status } = await ask('GET', `${cache()}/cache?keys=none&version=1`);
  console.log(`post: ${process.env.STATE_told} and ${process.env.STATE_kept}, the cache says ${status}`);
})();
