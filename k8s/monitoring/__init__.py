"""What watches runs: alerts for Prometheus and dashboards for Grafana."""
