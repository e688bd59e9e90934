/*
 * pg-boss.mjs
 *		Delivers what pg-boss holds: a queue "deliver" whose jobs are POSTed.
 *
 *		node pg-boss.mjs install=1
 *		node pg-boss.mjs url=URL [mode=work|pump] [batch=N] [workers=N] [concurrency=N] [pool=N]
 *
 * mode=work is the library's own loop: so many workers, each of which fetches a
 * batch, sends all of it at once and settles it. mode=pump uses fetch() and
 * complete() directly, so that nothing waits for the slowest of a batch: the
 * next one is fetched, and what is done is completed, while others are on their
 * way; up to concurrency of them. Both are woken by notifications.
 */
import { PgBoss } from 'pg-boss';
import { poster, ready, settings } from './post.mjs';

const set = settings({ url: '', mode: 'work', batch: 100, workers: 2, concurrency: 128, pool: 10, partition: 0, notify: 1, install: 0 });
const QUEUE = 'deliver';
const boss = new PgBoss({ connectionString: 'postgres://', max: set.pool, schedule: false, useListenNotify: set.notify === 1 });

boss.on('error', (error) => console.error(error.message));
boss.on('warning', () => {});
await boss.start();

const post = set.url ? poster(set.url, set.mode === 'pump' ? set.concurrency : set.batch * set.workers) : null;

/* Whether it was delivered. */
async function deliver(job)
{
	try {
		const status = await post(job.id, (job.retryCount ?? 0) + 1, JSON.stringify(job.data));

		return status >= 200 && status <= 299;
	} catch {
		return false;
	}
}

/* What failed is failed here, before the library completes the rest of the batch. */
async function batch(jobs)
{
	const failed = [];

	await Promise.all(jobs.map(async (job) => {
		if (!await deliver(job))
			failed.push(job.id);
	}));
	if (failed.length)
		await boss.fail(QUEUE, failed);
}

async function pump()
{
	let held = 0, filling = false, settling = false, wanted = false;
	let done = [], failed = [];

	async function settle()
	{
		if (settling)
			return;
		settling = true;
		while (done.length + failed.length) {
			const ids = done, bad = failed;

			done = [];
			failed = [];
			if (ids.length)
				await boss.complete(QUEUE, ids);
			if (bad.length)
				await boss.fail(QUEUE, bad);
		}
		settling = false;
	}

	async function send(job)
	{
		(await deliver(job) ? done : failed).push(job.id);
		held--;
		settle();
		fill();
	}

	async function fill()
	{
		wanted = true;
		if (filling)
			return;
		filling = true;
		while (wanted && held <= set.concurrency) {
			const jobs = await boss.fetch(QUEUE, { batchSize: set.batch });

			wanted = jobs.length === set.batch;
			held += jobs.length;
			jobs.forEach(send);
		}
		filling = false;
	}

	setInterval(fill, 500);
	await fill();
}

if (set.install) {
	await boss.createQueue(QUEUE, { partition: set.partition === 1, notify: set.notify === 1, retryLimit: 25, retryDelay: 1, retryBackoff: true });
	await boss.stop();
} else {
	process.on('SIGTERM', () => boss.stop({ graceful: true, timeout: 5000 }).then(() => process.exit(0)));
	if (set.mode === 'pump')
		await pump();
	else
		await boss.work(QUEUE, {
			batchSize: set.batch, localConcurrency: set.workers, pollingIntervalSeconds: 0.5, burstWhenBatchFull: true
		}, batch);
	ready();
}
