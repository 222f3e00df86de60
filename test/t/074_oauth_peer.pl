# OAuth 2.0 against oidc-provider and jose, which nobody here wrote: every grant, refresh
# tokens that serve once, tokens that die, token endpoints that do not behave, clocks that
# are wrong.  At the end no secret is found anywhere.
use strict;
use warnings;
use Encode qw(encode_utf8);
use FindBin;
use lib $FindBin::Bin;
use JSON::PP;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my ($node, $dir) = peers_node('oauth', 'log_min_messages = debug1', 'contactsync.http_max_body = 16MB');
my ($server, $port) = start_peers($dir);
my $base = "http://127.0.0.1:$port";
my @secrets;

sub sql { return $node->safe_psql('postgres', "SET search_path = contactsync, public; $_[0]") }
sub run_source
{
	my ($source) = @_;
	return sql("SELECT sync('$source') AS run \\gset\nSELECT wait_for_run(:run, '60 s') AS state \\gset\n"
		. "SELECT :'state' || ' ' || coalesce(error_code, '-') FROM runs WHERE id = :run");
}
sub state_of { return sql("SELECT state FROM status WHERE source = '$_[0]'") }
sub why { return sql("SELECT last_error FROM status WHERE source = '$_[0]'") }
# Requests since the last time: how many for tokens, how many for users.
sub asked
{
	my @urls = map { $_->{url} } @{ peer(op => 'log')->{requests} };
	return scalar(grep { m{/token} } @urls) . ' ' . scalar(grep { /Users/ } @urls);
}
# A source with these secrets; more are settings.  Who sends secrets as text keeps them out of the log.
sub source
{
	my ($name, $secret, %more) = @_;
	my $connector = delete $more{connector} // 'scim';
	my $settings = encode_json({ url => "$base/scim", token_url => "$base/oauth/token", poll => JSON::PP::false, allow_http => JSON::PP::true, allow_private => JSON::PP::true, %more });
	push @secrets, grep { !ref } map { $secret->{$_} } grep { !/^(client_id|username)$/ } keys %$secret;
	return $node->safe_psql('postgres', qq{SET log_statement = 'none'; SET log_min_error_statement = 'panic';
		SELECT contactsync.add_source('$name', '$connector', '$settings', \$s\$} . encode_json($secret) . q{$s$)});
}
sub authorize
{
	my ($name, $secret) = @_;
	push @secrets, grep { !ref } map { $secret->{$_} } grep { !/^(client_id|username)$/ } keys %$secret;
	$node->safe_psql('postgres', qq{SET log_statement = 'none'; SELECT contactsync.alter_source('$name', NULL, \$s\$} . encode_json($secret) . qq{\$s\$); SELECT contactsync.resume_source('$name')});
}
sub resume { sql("SELECT resume_source('$_[0]')") }

sql('CREATE EXTENSION contactsync');
my $client_secret = 's/cret +&=%"';
peer(op => 'users', count => 12);
sql(q{SELECT add_connector('scim-basic', spec || '{"auth": {"client_auth": "basic"}}') FROM connectors WHERE name = 'scim'});

# ---- client credentials ----
source('post', { client_id => 'post client', client_secret => $client_secret }, scope => 'contacts');
is(run_source('post'), 'succeeded -', 'client credentials in the body') or diag(why('post'));
is(asked(), '1 1', 'one token');
is(run_source('post') . ' ' . asked(), 'succeeded - 0 1', 'that is used as long as it lives');
source('basic', { client_id => 'basic:client+&', client_secret => $client_secret }, connector => 'scim-basic');
is(run_source('basic'), 'succeeded -', 'client credentials by basic, with all that has to be encoded') or diag(why('basic'));
source('wrong', { client_id => 'post client', client_secret => 'wr0ng' });
is(run_source('wrong') . ' ' . state_of('wrong'), 'failed 28000 stopped', 'a wrong secret: ' . why('wrong'));
like(why('wrong'), qr/"invalid_client"/, 'the code of the error is said');
is(sql(q{SELECT level || ' ' || (problem LIKE '%refused the credentials%invalid_client%') || ' ' || (hint <> '') FROM health() WHERE subject = 'wrong'}), 'error true true', 'and health() says what to do');
authorize('wrong', { client_id => 'post client', client_secret => $client_secret });
is(run_source('wrong') . ' ' . state_of('wrong'), 'succeeded - active', 'the right one');

# ---- refresh tokens, each of which serves once ----
my $first = peer(op => 'mint')->{token};
source('app', { refresh_token => $first, client_id => 'app', client_secret => $client_secret });
is(run_source('app'), 'succeeded -', 'a refresh token') or diag(why('app'));
for (1 .. 3)
{
	peer(op => 'revoke');
	asked();
	is(run_source('app'), 'succeeded -', 'the access token is refused: the next refresh token');
	is(asked(), '1 2', 'asks once');
}
# killed when the new token is there, and before it is used
peer(op => 'revoke');
peer(op => 'fault', match => '/scim/Users', hang => JSON::PP::true, after => 1, times => 1);
my $run = sql(q{SELECT sync('app')});
my $sent = 0;
for (1 .. 1500) { $sent += () = grep { m{/scim/Users} } map { $_->{url} } @{ peer(op => 'log')->{requests} }; last if $sent == 2; usleep(20_000) }
is($sent, 2, 'the worker has a new token');
is(sql(q{SELECT string_agg(DISTINCT query, '') !~ 's/cret' FROM pg_stat_activity WHERE query NOT LIKE '%pg_stat_activity%'}), 't', 'pg_stat_activity shows no secret meanwhile');
my $offset = -s $node->logfile;
kill 'KILL', sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'contactsync worker' AND datname = 'postgres'});
$node->wait_for_log(qr/database system is ready to accept connections/, $offset);
peer(op => 'fault');
ok($node->poll_query_until('postgres', "SELECT state NOT IN ('queued', 'running') FROM contactsync.runs WHERE id = $run") && sql("SELECT state FROM runs WHERE id = $run") eq 'succeeded', 'and is killed: another one goes on with what was kept');
is(state_of('app'), 'active', 'nothing was asked for by a token that had served');
$node->restart;
is(run_source('app'), 'succeeded -', 'nor after a restart');
# the answer with the new one is lost: the old one has served, and the provider takes the second use of it for a theft
peer(op => 'revoke');
peer(op => 'fault', match => '/oauth/token', answer => JSON::PP::true, times => 1);
is(run_source('app') . ' ' . state_of('app'), 'failed 08006 failing', 'an answer that got lost: ' . why('app'));
peer(op => 'fault');
is(run_source('app') . ' ' . state_of('app'), 'failed 28000 stopped', 'a refresh token that has served: ' . why('app'));
like(why('app'), qr/"invalid_grant"/, 'the family of tokens is revoked');
is(sql(q{SELECT level FROM health() WHERE subject = 'app' AND problem LIKE '%invalid_grant%'}), 'error', 'health() says so');
is(($node->psql('postgres', q{SELECT contactsync.sync('app')}))[0], 3, 'nothing is asked any more');
authorize('app', { refresh_token => peer(op => 'mint')->{token}, client_id => 'app', client_secret => $client_secret });
is(run_source('app') . ' ' . state_of('app'), 'succeeded - active', 'until somebody authorizes it anew');
# somebody else uses our token
my $stolen = peer(op => 'mint')->{token};
source('stolen', { refresh_token => $stolen, client_id => 'app', client_secret => $client_secret });
is(run_source('stolen'), 'succeeded -', 'a token of ours');
is(HTTP::Tiny->new->post_form("$base/oauth/token", { grant_type => 'refresh_token', refresh_token => $stolen, client_id => 'app', client_secret => $client_secret })->{status}, 400, 'that a thief has, too');
peer(op => 'revoke');
is(run_source('stolen') . ' ' . state_of('stolen'), 'failed 28000 stopped', 'is revoked with all that came of it: ' . why('stolen'));

# ---- tokens that die in the middle of a run; one refresher for all that a source does ----
peer(op => 'set', ttl => 4);
peer(op => 'revoke');
asked();
source('short', { refresh_token => peer(op => 'mint')->{token}, client_id => 'app', client_secret => $client_secret },
	parameters => { page_size => '1' }, rate => { requests => 1, per => '300 ms' });
is(run_source('short'), 'succeeded -', 'tokens that live four seconds') or diag(why('short'));
like(asked(), qr/^[2-9] 12$/, 'are renewed before they die');
peer(op => 'set', ttl => 1, expiresIn => JSON::PP::false);
source('silent', { client_id => 'post client', client_secret => $client_secret }, parameters => { page_size => '1' }, rate => { requests => 1, per => '300 ms' });
is(run_source('silent'), 'succeeded -', 'a provider that does not say how long') or diag(why('silent'));
my ($tokens, $pages) = split / /, asked();
cmp_ok($tokens, '>=', 2, 'tokens are renewed once they are refused');
is($pages, 12 + $tokens - 1, 'and only then');
peer(op => 'set', ttl => 3600, expiresIn => JSON::PP::true);
source('both', { refresh_token => peer(op => 'mint')->{token}, client_id => 'app', client_secret => $client_secret });
is(run_source('both'), 'succeeded -', 'a source');
my $some = sql(q{SELECT string_agg(quote_literal(source_id), ',') FROM (SELECT source_id FROM records WHERE source = 'both' LIMIT 5) r});
for (1 .. 3)
{
	peer(op => 'revoke');
	asked();
	$run = sql(qq{SELECT sync('both') FROM (SELECT fetch_records('both', ARRAY[$some])) f});
	is(sql("SELECT wait_for_run($run, '60 s')"), 'succeeded', 'a run and reads of single records at a time');
	ok($node->poll_query_until('postgres', 'SELECT NOT EXISTS (SELECT FROM contactsync.fetches)'), 'end');
	# mostly one: what was under way with the old token may ask once more, but never at the same time
	like(asked(), qr/^[12] /, 'without a refresh for each of them');
}
is(state_of('both') . sql(q{SELECT count(*) FROM dead_letters WHERE source = 'both'}), 'active0', 'and none of them is refused');

# ---- token endpoints that do not behave ----
set_timeout($node, 2);
source('odd', { client_id => 'post client', client_secret => $client_secret });
my $json = { 'Content-Type' => 'application/json' };
for my $case (
	[ 'invalid_client', 'failed 28000 stopped', status => 401, body => '{"error": "invalid_client", "error_description": "s/cret of ann@scim.example"}' ],
	[ 'nothing', 'failed 28000 stopped', status => 400, body => '' ],
	[ 'what is no code', 'failed 28000 stopped', status => 400, body => '{"error": "ann@scim.example may not"}' ],
	[ 'problem+json', 'failed 28000 stopped', status => 400, headers => { 'Content-Type' => 'application/problem+json' }, body => '{"type": "about:blank", "title": "no"}' ],
	[ 'half of it', 'failed 28000 stopped', status => 400, body => '{"error": "invalid_gra' ],
	[ '403', 'failed 28000 stopped', status => 403, body => '{"error": "invalid_grant"}' ],
	[ '429', 'failed 08006 failing', status => 429, headers => { 'Retry-After' => '100', %$json }, body => '{"error": "slow_down"}' ],
	[ '500', 'failed 08006 failing', status => 500, body => 'oops' ],
	[ '503', 'failed 08006 failing', status => 503, body => '{"error": "temporarily_unavailable"}' ],
	[ 'HTML with 200', 'failed 08P01 failing', headers => { 'Content-Type' => 'text/html' }, body => '<html>Sign in</html>' ],
	[ 'half a token', 'failed 22P02 failing', body => '{"access_token": "half' ],
	[ 'no token', 'failed 08P01 failing', body => '{"token_type": "Bearer"}' ],
	[ 'an empty token', 'failed 08P01 failing', body => '{"access_token": "", "token_type": "Bearer"}' ],
	[ 'a number', 'failed 08P01 failing', body => '{"access_token": 5, "token_type": "Bearer"}' ],
	[ 'an array', 'failed 08P01 failing', body => '["access_token"]' ],
	[ 'a token of two lines', 'failed 08P01 failing', body => '{"access_token": "hush\r\nX-Evil: 1", "token_type": "Bearer"}' ],
	[ 'a token of another type', 'failed 08P01 failing', body => '{"access_token": "hush", "token_type": "mac"}' ],
	[ '100 MB', 'failed 54000 failing', pad => 100_000_000, body => '{' ],
	[ 'nothing for too long', 'failed 08006 failing', hang => JSON::PP::true ],
	[ 'a redirect', 'failed 08P01 failing', status => 302, headers => { Location => "http://localhost:$port/stolen" }, body => '' ],
	[ 'a redirect that keeps the body', 'failed 08P01 failing', status => 307, headers => { Location => "http://localhost:$port/stolen" }, body => '' ])
{
	my ($name, $wanted, %fault) = @$case;
	resume('odd');
	peer(op => 'fault', match => '/oauth/token', headers => $json, %fault);
	is(run_source('odd') . ' ' . state_of('odd'), $wanted, "$name: " . why('odd'));
	if ($name eq '429')
	{
		is(sql(q{SELECT next_poll_at IS NULL OR next_poll_at >= now() + interval '90 s' FROM sources WHERE name = 'odd'}), 't', 'Retry-After is obeyed');
	}
	peer(op => 'fault');
}
is(scalar(grep { $_->{url} =~ /stolen/ } @{ peer(op => 'log')->{requests} }), 0, 'no redirect was followed');
unlike(sql(q{SELECT string_agg(error, ' ') FROM runs}), qr/hush|scim\.example|s\/cret/, 'what an endpoint says more is repeated nowhere');
set_timeout($node, 60);
# how long a token lives may be said in odd ways: none of them does harm
my $n = 0;
for my $lifetime ('3600', '"3600"', '"soon"', 'null', '-5', '0', '0.5', '1e400', '1e-400', '99999999999999999999', '[]', '{"in": 5}')
{
	my $name = 'lives ' . ++$n;
	peer(op => 'fault', match => '/oauth/token', headers => $json, body => qq({"access_token": "static token", "token_type": "BEARER", "expires_in": $lifetime}), times => 1);
	source($name, { client_id => 'post client', client_secret => $client_secret });
	is(run_source($name) . ' ' . state_of($name), 'succeeded - active', "expires_in is $lifetime") or diag(why($name));
	peer(op => 'fault');
}
asked();
set_retries($node, 3);
peer(op => 'fault', match => '/oauth/token', headers => { 'Retry-After' => '1', %$json }, status => 429, body => '{"error": "slow_down"}', times => 2);
is(run_source('odd'), 'succeeded -', 'an endpoint that asks to wait is asked again');
is(asked(), '3 1', 'until it answers');
set_retries($node, 0);
peer(op => 'fault');

# ---- assertions, checked by jose ----
sub slurp { return slurp_file("$dir/$_[0]") }
system_or_bail('openssl', 'genpkey', '-quiet', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048', '-out', "$dir/pkcs8.pem");
system_or_bail('openssl', 'rsa', '-in', "$dir/pkcs8.pem", '-traditional', '-out', "$dir/pkcs1.pem");
system_or_bail('openssl', 'pkey', '-in', "$dir/pkcs8.pem", '-pubout', '-out', "$dir/public.pem");
system_or_bail('openssl', 'genpkey', '-quiet', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048', '-out', "$dir/other.pem");
system_or_bail('openssl', 'pkey', '-in', "$dir/pkcs8.pem", '-aes256', '-passout', 'pass:x', '-out', "$dir/locked.pem");
system_or_bail('openssl', 'ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', "$dir/ec.pem");
like(slurp('pkcs1.pem') . slurp('pkcs8.pem'), qr/BEGIN RSA PRIVATE KEY.*BEGIN PRIVATE KEY/s, 'keys of both forms');
peer(op => 'set', publicKey => slurp('public.pem'), issuer => 'robot@project.example', audience => "$base/jwt/token");
my %robot = (token_url => "$base/jwt/token", scope => 'contacts.readonly other');
spew("$dir/account.json", encode_json({ type => 'service_account', client_email => 'robot@project.example', private_key_id => 'key-7', private_key => slurp('pkcs8.pem'), token_uri => 'https://elsewhere.example/token' }));
source('account', { service_account => { file => "$dir/account.json" } }, %robot);
is(run_source('account'), 'succeeded -', 'a key file of a service account, by reference') or diag(why('account'));
my $claims = peer(op => 'log')->{claims};
is("$claims->{header}{alg} $claims->{header}{typ} $claims->{header}{kid} $claims->{iss} $claims->{aud} $claims->{scope} " . ($claims->{exp} - $claims->{iat}) . (exists $claims->{sub} ? ' sub' : ''),
	"RS256 JWT key-7 robot\@project.example $base/jwt/token contacts.readonly other 3600", 'its claims');
for my $form ('pkcs1', 'pkcs8')
{
	source($form, { client_id => 'robot@project.example', private_key => slurp("$form.pem") }, %robot);
	is(run_source($form), 'succeeded -', "a key in $form") or diag(why($form));
	source("$form-file", { client_id => 'robot@project.example', private_key => { file => "$dir/$form.pem" } }, %robot);
	is(run_source("$form-file"), 'succeeded -', "in a file") or diag(why("$form-file"));
}
sql(q{SELECT add_connector('on-behalf', spec || '{"parameters": {"subject": "", "filter": "", "page_size": "100"}, "auth": {"jwt": {"audience": "https://api.example", "subject": "{subject}"}}}') FROM connectors WHERE name = 'scim'});
source('behalf', { service_account => { file => "$dir/account.json" } }, %robot, connector => 'on-behalf', parameters => { subject => "ann\"\\\@x.org" });
is(run_source('behalf') . ' ' . state_of('behalf'), 'failed 28000 stopped', 'an audience that is another: ' . why('behalf'));
peer(op => 'set', audience => 'https://api.example');
resume('behalf');
is(run_source('behalf'), 'succeeded -', 'the one that is meant') or diag(why('behalf'));
is(peer(op => 'log')->{claims}{sub}, "ann\"\\\@x.org", 'for whom it is');
peer(op => 'set', audience => "$base/jwt/token");
for my $key ([ 'other', slurp('other.pem'), qr/"invalid_grant"/ ], [ 'locked', slurp('locked.pem'), qr/private key cannot sign/ ], [ 'ec', slurp('ec.pem'), qr/private key cannot sign/ ],
	[ 'public', slurp('public.pem'), qr/private key cannot sign/ ], [ 'half', substr(slurp('pkcs8.pem'), 0, 700), qr/private key cannot sign/ ], [ 'junk', 'no key at all', qr/private key cannot sign/ ])
{
	my ($name, $pem, $error) = @$key;
	source("key-$name", { client_id => 'robot@project.example', private_key => $pem }, %robot);
	is(run_source("key-$name") . ' ' . state_of("key-$name"), 'failed 28000 stopped', "a key that is of no use: $name");
	like(why("key-$name"), $error, why("key-$name"));
}
spew("$dir/account.json", '{"client_email": "robot@project.example"}');
source('lame', { service_account => { file => "$dir/account.json" } }, %robot);
is(run_source('lame'), 'failed 28000', 'a key file without a key: ' . why('lame'));
spew("$dir/account.json", '{"client_email": "robot@project.exa');
resume('lame');
isnt(run_source('lame'), 'succeeded -', 'half a key file: ' . why('lame'));
# the provider's clock is the one that counts
for my $hours (2, -2)
{
	peer(op => 'clock', at => sql(qq{SELECT to_char((now() + interval '$hours hours') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')}));
	source("clock $hours", { client_id => 'robot@project.example', private_key => { file => "$dir/pkcs8.pem" } }, %robot);
	asked();
	is(run_source("clock $hours") . ' ' . asked(), 'succeeded - 2 1', "our clock is wrong by $hours hours") or diag(why("clock $hours"));
}
peer(op => 'clock');
asked();
resume('key-other');
is(run_source('key-other') . ' ' . asked(), 'failed 28000 1 0', 'a refusal for another reason is none of the clock');

# ---- what is not OAuth, with all that a secret may hold ----
my ($key, $password) = (q{k y&+%=/#"'?;}, "p:w \x{fc}&+%\"'\\");
peer(op => 'set', key => $key, basic => "\x{e4}nn \@:$password", token => 'a.b-c_d~e+f/g==');
source('bearer', { token => 'a.b-c_d~e+f/g==' });
is(run_source('bearer'), 'succeeded -', 'a bearer token') or diag(why('bearer'));
source('user', { username => "\x{e4}nn \@", password => $password }, url => "$base/basic");
is(run_source('user'), 'succeeded -', 'basic') or diag(why('user'));
source('colon', { username => 'a:b', password => 'p' }, url => "$base/basic");
is(run_source('colon') . ' ' . state_of('colon'), 'failed 28000 stopped', 'basic knows no user name with a colon: ' . why('colon'));
for my $where ('header', 'query')
{
	my $spec = $where eq 'query' ? '{"auth": {"api_key": {"query": "api_key"}}}' : '{}';
	sql(qq{SELECT add_connector('key-$where', spec || '$spec') FROM connectors WHERE name = 'scim'});
	source("by-$where", { api_key => $key }, connector => "key-$where", url => "$base/$where");
	is(run_source("by-$where"), 'succeeded -', "an API key in the $where") or diag(why("by-$where"));
	source("bad-$where", { api_key => "k\r\nX-Evil: 1" }, connector => "key-$where", url => "$base/$where");
	like(run_source("bad-$where"), qr/^failed (28000|08004|08P01)$/, 'one that cannot be: ' . why("bad-$where"));
}

# ---- a secret is found nowhere ----
push @secrets, @{ peer(op => 'log')->{issued} }, 'BEGIN PRIVATE', 'BEGIN RSA', (split /\n/, slurp('pkcs8.pem'))[3], (split /\n/, slurp('pkcs1.pem'))[3], $key, $password, $client_secret;
my @found = grep { length > 2 } map { my $s = $_; ($s, encode_utf8($s), map { s/([^A-Za-z0-9._~-])/sprintf('%%%02X', ord $1)/ger } encode_utf8($s)) } map { /\n/ ? () : $_ } @secrets;
cmp_ok(scalar(@found), '>', 100, 'there were ' . scalar(@secrets) . ' secrets');
my $dump = $node->safe_psql('postgres', q{SELECT string_agg(query_to_xml('SELECT * FROM ' || c.oid::regclass, true, false, '')::text, '')
	FROM pg_class c WHERE c.relnamespace = 'contactsync'::regnamespace AND c.relkind IN ('r', 'v')});
cmp_ok(length($dump), '>', 100_000, 'all tables and views');
my %places = (log => slurp_file($node->logfile), tables => $dump, activity => sql('SELECT string_agg(query, chr(10)) FROM pg_stat_activity'));
for my $place (sort keys %places)
{
	my @here = grep { index($places{$place}, $_) >= 0 } @found;
	is(join(' ', map { length > 8 ? substr($_, 0, 8) . '...' : $_ } @here), '', "no secret in: $place");
}
unlike($places{log}, qr/TRAP|PANIC/, 'no assertion failed');
$node->stop;
$server->kill_kill;
done_testing();
