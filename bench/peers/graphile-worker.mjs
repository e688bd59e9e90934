/*
 * graphile-worker.mjs
 *		Delivers what graphile-worker holds: a task "deliver" that POSTs its payload.
 *
 *		node graphile-worker.mjs install=1
 *		node graphile-worker.mjs url=URL [concurrency=N] [queue=N] [delay=MS] [pool=N]
 *
 * queue is the size of the local queue (-1: none), delay what completions and
 * failures are gathered for (-1: not at all). The database is that of PGHOST
 * and so on. A failure throws, and the library tries again after exp(attempts)
 * seconds, which cannot be changed.
 */
import { Logger, run, runMigrations } from 'graphile-worker';
import { poster, ready, settings } from './post.mjs';

const set = settings({ url: '', concurrency: 128, queue: 500, delay: 0, pool: 10, install: 0 });
const silent = new Logger(() => () => {});
const connectionString = 'postgres://';

if (set.install) {
	await runMigrations({ connectionString, logger: silent });
} else {
	const post = poster(set.url, set.concurrency);
	const preset = {
		worker: {
			connectionString, logger: silent, concurrentJobs: set.concurrency, maxPoolSize: set.pool,
			localQueue: { size: set.queue }, completeJobBatchDelay: set.delay, failJobBatchDelay: set.delay
		}
	};
	const taskList = {
		async deliver(payload, { job }) {
			const status = await post(job.id, job.attempts, JSON.stringify(payload));

			if (status < 200 || status > 299)
				throw new Error(`HTTP ${status}`);
		}
	};
	const runner = await run({ preset, taskList });

	ready();
	await runner.promise;
}
