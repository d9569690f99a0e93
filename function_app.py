"""Entry point for Azure Functions (Python v2 programming model): wiring only. The functions: functions/triggers.py."""

import os

import azure.functions as func

from functions.application import Application
from functions.triggers import blueprint

app = func.FunctionApp()
app.register_functions(blueprint(Application(os.environ)))
