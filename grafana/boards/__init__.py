"""The dashboards, each in a file of its own."""

from grafana.boards.bench import BENCH
from grafana.boards.broker import BROKER
from grafana.boards.clients import CLIENTS
from grafana.boards.cluster import CLUSTER
from grafana.boards.controller import CONTROLLER
from grafana.boards.groups import GROUPS
from grafana.boards.topics import TOPICS

BOARDS = (CLUSTER, BROKER, TOPICS, CONTROLLER, GROUPS, CLIENTS, BENCH)
