# The worker: reads a source over HTTP, applies at once, and survives what
# providers, crashes and DBAs do to it.
use strict;
use warnings;
use File::Spec;
use FindBin;
use lib $FindBin::Bin;
use JSON::PP;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = PostgreSQL::Test::Cluster->new('worker');
my $dir = File::Spec->rel2abs($node->basedir . '/crm');
mkdir $dir or die $!;
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'contactsync'
contactsync.secret_directory = '$dir'
contactsync.http_timeout = 60
contactsync.http_retries = 0
restart_after_crash = on
});
$node->start;

# ---- a CRM ----
my %crm = (token => 'tok', contacts => [], fault => undef);

sub set_crm { %crm = (%crm, @_); spew("$dir/state.json", encode_json(\%crm)) }
sub person
{
	my ($i, $day, %more) = @_;
	return { id => "$i", updated_at => sprintf('2026-01-%02dT00:00:00.000000Z', $day), %more{ grep { $_ eq 'deleted' } keys %more },
		properties => { firstname => "First$i", lastname => "Last$i", email => "p$i\@x.org", %{ $more{properties} // {} } } };
}
spew("$dir/token", "tok\n");
set_crm(contacts => [ map { person($_, 1) } 1 .. 250 ]);
my $crm = IPC::Run::start([ 'python3', "$FindBin::Bin/../sandbox/crm.py", "$dir/state.json", "$dir/port", $$ ]);
for (1 .. 500) { last if -e "$dir/port"; usleep(20_000) }
my $port = slurp_file("$dir/port");

sub sql { return $node->safe_psql('postgres', "SET search_path = contactsync, public; $_[0]") }
sub run_source
{
	my ($full) = @_;
	my $run = sql("SELECT sync('crm'" . ($full ? ', true' : '') . ')');
	return (sql("SELECT wait_for_run($run, '60 s')"), $run);
}
my $spec = encode_json({ driver => 'rest',
	list => { path => '/contacts', query => { limit => '100' }, since => { param => 'updated_since', overlap => '1 min' },
		page => { param => 'after', next => '$.paging.next.after' }, items => '$.results' },
	item => { id => '$.id', version => '$.updated_at', deleted => '$.deleted' },
	map => { first_name => '$.properties.firstname', last_name => '$.properties.lastname',
		emails => [ { address => '$.properties.email', type => 'work' } ], title => '$.properties.jobtitle',
		metadata => { billing_contact => '$.properties.billing_contact' } } });

# ---- first read, and applying at once ----
sql('CREATE EXTENSION contactsync');
sql("SELECT add_connector('demo', '$spec')");
sql(qq{SELECT add_source('crm', 'demo', '{"url": "http://127.0.0.1:$port/api/", "poll": false, "allow_http": true, "allow_private": true}',
	'{"token": {"file": "$dir/token"}}')});
my ($state, $run) = run_source();
is($state, 'succeeded', 'the first read succeeds');
is(sql("SELECT kind, pages, items, certified, certificate_applied FROM runs WHERE id = $run"), 'full|3|250|t|t', 'it is full, paged and certified');
is(sql('SELECT count(*), count(DISTINCT id) FROM directory'), '250|250', 'every contact is there once');
is(sql(q{SELECT contact -> 'emails' FROM directory WHERE last_name = 'Last7'}),
	'[{"type": "work", "address": "p7@x.org", "primary": true}]', 'and is mapped');
sql(q{SELECT add_source('pushed', 'canonical'); SELECT ingest('pushed', '1', '{"last_name": "Last7", "first_name": "First7", "emails": ["p7@x.org"], "note": "hi"}', now())});
ok($node->poll_query_until('postgres', q{SELECT note = 'hi' FROM contactsync.directory WHERE last_name = 'Last7'}), 'an event is applied without process()');

sql(q{INSERT INTO inbox_dedup (source, key, inbox_id, seen_at) VALUES ('pushed', 'old', 0, now() - interval '10 years'), ('pushed', 'new', 0, now())});
$node->restart;
ok($node->poll_query_until('postgres', q{SELECT NOT EXISTS (SELECT FROM contactsync.inbox_dedup WHERE key = 'old')}), 'event ids are forgotten in time');
is(sql(q{SELECT key FROM inbox_dedup WHERE source = 'pushed' AND key IN ('old', 'new')}), 'new', 'and not before');

# ---- what changed ----
my @people = @{ $crm{contacts} };
$people[0] = person(1, 5, properties => { jobtitle => 'CTO' });
$people[1] = { id => '2', updated_at => '2026-01-06T00:00:00.000000Z', deleted => JSON::PP::true };
set_crm(contacts => \@people);
($state, $run) = run_source();
is($state, 'succeeded', 'an incremental read succeeds');
is(sql("SELECT kind, deletes, cursor_after ->> 'since' FROM runs WHERE id = $run"), 'incremental|1|2026-01-06T00:00:00.000000Z', 'it moves the cursor');
is(sql(q{SELECT title FROM directory WHERE last_name = 'Last1'}), 'CTO', 'the change is there');
is(sql(q{SELECT count(*) FROM directory WHERE last_name = 'Last2'}), '0', 'the tombstone deleted');
my $before = sql('SELECT count(*) FROM observations');
run_source();
is(sql('SELECT count(*) FROM observations'), $before, 'what is read twice changes nothing');

# ---- a provider that misbehaves ----
my $cursor = sql(q{SELECT "cursor" FROM sources WHERE name = 'crm'});
my %expect = (500 => '08006', 429 => '08006', 404 => '08P01', html => '08P01', cut => '08006', half => '22P02', hang => '08006', loop => '08P01', redirect => '08P01');
for my $fault (sort keys %expect)
{
	set_crm(fault => $fault =~ /^\d+$/ ? 0 + $fault : $fault);
	set_timeout($node, $fault eq 'hang' ? 1 : 60);
	($state, $run) = run_source($fault eq 'loop');
	is($state . ' ' . sql("SELECT error_code FROM runs WHERE id = $run"), "failed $expect{$fault}", "$fault: the run fails with its reason");
	isnt(sql("SELECT error FROM runs WHERE id = $run"), '', "$fault: and says it: " . sql("SELECT error FROM runs WHERE id = $run"));
}
is(sql(q{SELECT "cursor" FROM sources WHERE name = 'crm'}), $cursor, 'the cursor stayed');
is(sql(q{SELECT state, failures FROM sources WHERE name = 'crm'}), 'failing|' . keys(%expect), 'the source is marked');
set_crm(fault => 500, fault_from => 1);
($state, $run) = run_source(1);
is("$state " . sql("SELECT pages, items, certified FROM runs WHERE id = $run"), 'failed 1|100|f', 'a full read that breaks off is not certified');
is(sql('SELECT count(*) FROM directory'), '249', 'and deletes nothing');
set_crm(fault => undef, fault_from => undef);
is((run_source())[0], 'succeeded', 'the next run goes on');
is(sql(q{SELECT state, failures, last_error IS NULL FROM sources WHERE name = 'crm'}), 'active|0|t', 'and the source has recovered');

spew("$dir/token", "wrong\n");
($state, $run) = run_source();
is($state . ' ' . sql("SELECT error_code FROM runs WHERE id = $run") . ' ' . sql(q{SELECT state FROM sources WHERE name = 'crm'}), 'failed 28000 stopped',
	'refused credentials stop the source');
unlike(slurp_file($node->logfile), qr/wrong/, 'and are not in the log');
spew("$dir/token", "tok\n");
sql(q{SELECT resume_source('crm')});

# ---- deletes by absence ----
@people = grep { "$_->{id}" > 5 } @people;
set_crm(contacts => \@people);
($state, $run) = run_source(1);
is("$state " . sql("SELECT missed FROM runs WHERE id = $run"), 'succeeded 4', 'a full read without five people, of whom one is deleted');
is(sql('SELECT count(*) FROM directory'), '249', 'proves nothing yet');
is((run_source(1))[0], 'succeeded', 'a second one');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 245 FROM contactsync.directory'), 'they are deleted');
set_crm(contacts => [ @people[0 .. 99] ]);
run_source(1);
($state, $run) = run_source(1);
is(sql("SELECT held_deletes FROM runs WHERE id = $run"), '145', 'too many deletes are held');
is(sql('SELECT count(*) FROM directory'), '245', 'and not done');
sql("SELECT reject_run($run)");
set_crm(fault => 'empty');
run_source(1);
($state, $run) = run_source(1);
is(sql("SELECT held_deletes FROM runs WHERE id = $run"), '245', 'an empty list with status 200 deletes nobody');
set_crm(fault => undef);
($state, $run) = run_source(1);
sql("SELECT approve_run($run)");
ok($node->poll_query_until('postgres', 'SELECT count(*) = 100 FROM contactsync.directory'), 'until somebody approves it');

# ---- not where it may not go ----
sql(qq{SELECT add_source('inside', 'rest', '{"url": "http://127.0.0.1:$port/api", "poll": false, "allow_http": true}')});
$run = sql(q{SELECT sync('inside')});
is(sql("SELECT wait_for_run($run, '20 s')") . ' ' . sql("SELECT error_code FROM runs WHERE id = $run"), 'failed 08004', 'a private address is refused unless the source allows it');

# ---- a run that cannot even begin costs nobody else ----
spew("$dir/gone", "tok\n");
sql(qq{SELECT add_source('keyless', 'demo', '{"url": "http://127.0.0.1:$port/api", "poll": false, "allow_http": true, "allow_private": true}',
	'{"token": {"file": "$dir/gone"}}')});
unlink "$dir/gone";
$run = sql(q{SELECT sync('keyless')});
is(sql("SELECT wait_for_run($run, '20 s')") . ' ' . sql("SELECT error_code FROM runs WHERE id = $run"), 'failed 58P01', 'a secret file that is missing fails its run');
is((run_source())[0], 'succeeded', 'and no other');

# ---- polling, by itself ----
sql(qq{SELECT add_source('polled', 'demo', '{"url": "http://127.0.0.1:$port/api", "poll": "1 s", "allow_http": true, "allow_private": true}',
	'{"token": {"file": "$dir/token"}}')});
ok($node->poll_query_until('postgres', q{SELECT count(*) >= 3 FROM contactsync.runs WHERE source = 'polled' AND cause = 'schedule' AND state = 'succeeded'}),
	'a source is polled at its interval');
is(sql(q{SELECT string_agg(DISTINCT kind, ' ' ORDER BY kind) FROM runs WHERE source = 'polled'}), 'full incremental', 'first everything, then what changed');
set_crm(fault => 503);
ok($node->poll_query_until('postgres', q{SELECT state = 'failing' AND failures >= 2 FROM contactsync.sources WHERE name = 'polled'}), 'one that fails is asked again');
set_crm(fault => undef);
ok($node->poll_query_until('postgres', q{SELECT state = 'active' AND failures = 0 FROM contactsync.sources WHERE name = 'polled'}), 'until it answers');
sql(q{SELECT pause_source('polled')});
my $polls = sql(q{SELECT count(*) FROM runs WHERE source = 'polled'});
is((run_source())[0], 'succeeded', 'while others go on');
is(sql(q{SELECT count(*) FROM runs WHERE source = 'polled'}), $polls, 'a paused source is not asked');

# ---- kill -9 in the middle ----
set_crm(contacts => [ map { person($_, 9) } 1 .. 400 ], fault => 'hang', fault_from => 1);
my ($rc, $out, $err) = $node->psql('postgres', "SET search_path = contactsync; SELECT sync('crm', true)");
$run = $out;
ok($node->poll_query_until('postgres', "SELECT pages = 1 FROM contactsync.runs WHERE id = $run"), 'one page is in');
set_crm(fault => undef, fault_from => undef);
my $pid = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'contactsync worker' AND datname = 'postgres'});
my $offset = -s $node->logfile;
kill 'KILL', $pid;
$node->wait_for_log(qr/database system is ready to accept connections/, $offset);
ok($node->poll_query_until('postgres', "SELECT state = 'succeeded' AND certificate_applied FROM contactsync.runs WHERE id = $run"), 'after kill -9 of the worker the run goes on by itself');
is(sql("SELECT attempt, pages, items FROM runs WHERE id = $run"), '2|4|400', 'where its last page ended');
is(sql('SELECT count(*) FROM directory'), '400', 'nothing lost, nothing twice');
is(sql(q{SELECT count(*) FROM (SELECT 1 FROM observations GROUP BY tenant_id, record_id, digest HAVING count(*) > 1) x}), '0', 'no observation twice');
set_crm(contacts => [ map { person($_, 12) } 1 .. 400 ], fault => 'hang', fault_from => 1);
$run = sql(q{SELECT sync('crm', true)});
ok($node->poll_query_until('postgres', "SELECT pages = 1 FROM contactsync.runs WHERE id = $run"), 'again one page');
$node->stop('immediate');
set_crm(fault => undef, fault_from => undef);
$node->start;
ok($node->poll_query_until('postgres', "SELECT state = 'succeeded' AND certificate_applied FROM contactsync.runs WHERE id = $run"), 'after a crash of the server too');
is(sql('SELECT count(*) FROM directory'), '400', 'nothing lost, nothing twice');

# ---- a webhook, and its dedupe ----
# ---- bad rows do not stop the good ----
sql(q{SELECT ingest('crm', 'bad', '{"properties": {"email": {"a": 1}, "lastname": "B"}}', now()); SELECT ingest('crm', 'good', '{"properties": {"lastname": "Good"}}', now())});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM contactsync.directory WHERE last_name = 'Good'}), 'a bad event does not stop the good');
is(sql(q{SELECT error_code FROM inbox WHERE source_id = 'bad'}), '22P02', 'and stays with its reason');

# ---- tenants ----
$node->safe_psql('postgres', q{CREATE ROLE acme; INSERT INTO contactsync.tenants (tenant_id, role_name) VALUES ('acme', 'acme');
	SET contactsync.tenant = 'acme'; SELECT contactsync.add_source('crm', 'canonical');
	SELECT contactsync.ingest('crm', '1', '{"last_name": "Acme"}', now());});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM contactsync.contacts WHERE tenant_id = 'acme'}), 'the worker serves every tenant');

# ---- what DBAs do ----
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', q{CREATE EXTENSION contactsync; SELECT contactsync.add_source('s', 'canonical'); SELECT contactsync.ingest('s', '1', '{"last_name": "O"}', now())});
ok($node->poll_query_until('other', 'SELECT count(*) = 1 FROM contactsync.directory'), 'a second database gets a worker');
$node->safe_psql('postgres', 'CREATE DATABASE clone TEMPLATE other');
pass('a database with a worker can be a template');
is(($node->psql('clone', q{SELECT contactsync.ingest('s', '2', '{}', now())}))[0], 3, 'its copy is dormant');
$node->safe_psql('postgres', 'ALTER DATABASE other RENAME TO renamed');
$node->safe_psql('renamed', q{SELECT contactsync.ingest('s', '3', '{"last_name": "R"}', now())});
ok($node->poll_query_until('renamed', 'SELECT count(*) = 2 FROM contactsync.directory'), 'it works after a rename');
$node->safe_psql('renamed', 'DROP EXTENSION contactsync');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'contactsync worker' AND datname = 'renamed'}),
	'the extension can be dropped under its worker, which goes');
$node->safe_psql('postgres', 'DROP DATABASE renamed; ');
$node->safe_psql('postgres', 'DROP DATABASE clone');
pass('databases with workers can be dropped');

# ---- standby ----
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'contactsync%'}), '0', 'a standby is idle');
$node->stop;
$standby->promote;
$standby->safe_psql('postgres', q{SELECT contactsync.ingest('pushed', '9', '{"last_name": "Promoted"}', now())});
ok($standby->poll_query_until('postgres', q{SELECT count(*) = 1 FROM contactsync.directory WHERE last_name = 'Promoted'}), 'promoted, it works');
unlike(slurp_file($standby->logfile), qr/PANIC|TRAP/, 'no assertion failed');
$standby->stop;
$crm->kill_kill;
done_testing();
