"""Fixtures of the end-to-end tests: a broker per test, clients that are closed at its end, and async tests."""

import asyncio
import inspect

import pytest

import harness
import raw

TEST_TIMEOUT_S = 120


def pytest_pyfunc_call(pyfuncitem):
    """Runs `async def` tests in an event loop of their own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(asyncio.wait_for(pyfuncitem.obj(**arguments), TEST_TIMEOUT_S))
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        asyncio.set_event_loop(None)
    return True


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failing test shows the broker's log."""
    outcome = yield
    report = outcome.get_result()
    for broker in getattr(item, "brokers", []):
        if report.failed and broker.log():
            report.sections.append(("xylemd", broker.log()))


@pytest.fixture
def make_broker(request):
    """Brokers with settings of the test's own: make_broker({"limits": {"sessions": 2}}). Not started."""
    request.node.brokers = []

    def make(overrides=None, **more):
        broker = harness.Broker(overrides, **more)
        request.node.brokers.append(broker)
        return broker

    yield make
    for broker in request.node.brokers:
        broker.finish()


@pytest.fixture
def broker(make_broker):
    """A running broker with the usual settings and accounts."""
    return make_broker().start()


@pytest.fixture
def connect(request):
    """Raw clients that are dropped at the end: connect(broker), connect(broker, "alice", "desk", presence=0)."""
    clients = []

    def make(broker, user=None, resource=None, presence=None, **how):
        client = raw.Client(broker, **how)
        clients.append(client)
        return client.login(user, resource, presence) if user else client

    yield make
    for client in clients:
        client.drop()
